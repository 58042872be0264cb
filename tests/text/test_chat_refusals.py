"""Conversations that are left out and counted, and those that are refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.text.support import (
    CHATML,
    LLAMA,
    ByteTokenizer,
    bert_tokenizer,
    drained,
    embedded_tokenizer,
    write_jsonl,
)
from tests.text.talks import ASK, MORE, SAY, TALK, read
from workbench.errors import UserError
from workbench.text import read_sequences


def test_a_long_conversation_is_skipped_and_counted(tmp_path: Path) -> None:
    long = [{"role": "user", "content": "word " * 300}]
    talks = [long, TALK[1:3], long, TALK[1:2], [], TALK[:2], long]
    source = write_jsonl(tmp_path / "c.jsonl", [{"messages": talk} for talk in talks])
    sequences, rest = drained(
        iter(read_sequences(embedded_tokenizer(CHATML), source, n_ctx=128, layout="chat"))
    )
    names = [name for sequence in sequences for name in sequence.new_documents]
    assert sorted(names) == ["c.jsonl#2", "c.jsonl#4", "c.jsonl#6"]
    skipped = sum((Counter(part.skipped) for part in [*sequences, rest]), Counter())
    assert skipped == {"conversations longer than n_ctx": 3, "empty documents": 1}


def test_a_conversation_that_the_template_refuses_is_skipped_and_counted(tmp_path: Path) -> None:
    tokenizer = embedded_tokenizer(LLAMA)
    talks = [TALK[1:3], [ASK, MORE], TALK[1:2]]
    source = write_jsonl(tmp_path / "c.jsonl", [{"messages": talk} for talk in talks])
    sequences, rest = drained(iter(read_sequences(tokenizer, source, n_ctx=256, layout="chat")))
    assert len(sequences) == 2
    assert [part.skipped for part in [*sequences, rest] if part.skipped] == [
        {"conversations that the chat template refuses": 1}
    ]
    source = write_jsonl(tmp_path / "d.jsonl", [{"messages": [ASK, MORE]}])
    with pytest.raises(UserError, match=r"gives no conversation within n_ctx 256 .*roles must alternate"):
        list(read_sequences(tokenizer, source, n_ctx=256, layout="chat"))


def test_a_conversation_of_exactly_n_ctx_is_kept(tmp_path: Path) -> None:
    tokenizer = embedded_tokenizer(CHATML)
    n_tokens = len(tokenizer.apply_chat_template(TALK, tokenize=True, return_dict=False))
    assert len(read(tokenizer, tmp_path, [TALK, TALK[:1]], n_ctx=n_tokens)) == 2
    assert len(read(tokenizer, tmp_path, [TALK, TALK[:1]], n_ctx=n_tokens - 1)) == 1


def test_no_conversation_that_fits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"within n_ctx 8 \(1 conversations longer than n_ctx\): raise n_ctx"):
        read(embedded_tokenizer(CHATML), tmp_path, [TALK], n_ctx=8)


REWRITING = {
    CHATML
    + "{% if 'again' in messages[-1]['content'] %}again!{% endif %}": r"rewrites message 1 \(assistant\)",
    CHATML.replace("m['content']", "m['content'] | upper"): r"rewrites message 0 \(user\)",
    CHATML.replace("m['content']", "m['content'][:3]"): r"(rewrites|leaves out) message 0 \(user\)",
    CHATML.replace("messages %}", "messages[1:] %}"): r"leaves out message 0 \(user\)",
    CHATML.replace(
        "m['content']", "m['content'] | replace('again', 'more')"
    ): r"rewrites message 1 \(assistant\)",
}


@pytest.mark.parametrize("template", REWRITING)
def test_templates_that_rewrite_messages_are_refused(tmp_path: Path, template: str) -> None:
    with pytest.raises(
        UserError, match=r"line 1 of .*talk\.jsonl': the chat template " + REWRITING[template]
    ):
        read(embedded_tokenizer(template), tmp_path, [[ASK, SAY]])


BAD_TALKS = {
    "not a list": ("hello", "column 'messages' holds str, not a list of messages"),
    "not an object": (["hello"], "message 0 is str, not an object with role and content"),
    "no role": (
        [{"rôle": "user", "content": "a"}],
        r"message 0 has no 'role' \(or 'from'\); the nearest: rôle",
    ),
    "role": (
        [ASK, {"role": "asistant", "content": "a"}],
        "message 1 has the unknown role 'asistant'; the nearest: assi",
    ),
    "from": ([{"from": "gtp", "value": "a"}], "message 0 has the unknown role 'gtp'; the nearest: gpt"),
    "parts": ([{"role": "user", "content": [{"type": "text"}]}], "message 0 holds list as content, not text"),
}


@pytest.mark.parametrize("name", BAD_TALKS)
def test_what_is_no_conversation_is_refused(tmp_path: Path, name: str) -> None:
    talk, message = BAD_TALKS[name]
    with pytest.raises(UserError, match=r"line 1 of .*talk\.jsonl'.*" + message):
        read(embedded_tokenizer(CHATML), tmp_path, [talk])


def test_chat_needs_a_template_a_fast_tokenizer_and_records(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a chat template and the tokenizer has none"):
        read(embedded_tokenizer(), tmp_path, [TALK])
    with pytest.raises(UserError, match="needs a chat template and the tokenizer has none"):
        read(bert_tokenizer(), tmp_path, [TALK])

    class Slow(ByteTokenizer):
        chat_template = CHATML

        def get_chat_template(self) -> str:
            return CHATML

    with pytest.raises(UserError, match="needs a fast tokenizer"):
        read(Slow(), tmp_path, [TALK])
    with pytest.raises(
        UserError, match="needs conversations in JSONL, Parquet or a dataset, and text 'stdlib'"
    ):
        read_sequences(embedded_tokenizer(CHATML), "stdlib", n_ctx=64, layout="chat")
