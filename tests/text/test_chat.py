"""Chat: the tokens are those of the template, and every token's role is that of its turn."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.support import (
    CHATML,
    DATED,
    LLAMA,
    embedded_tokenizer,
    same,
    write_jsonl,
    write_parquet,
)
from tests.text.talks import ASK, TALK, read
from workbench.text import TokenSequence, read_sequences
from workbench.text.chat import ROLES, token_roles


def runs(tokenizer: Any, sequence: TokenSequence) -> list[tuple[str, str]]:
    """Role and text of each stretch of tokens of one role."""
    assert sequence.role is not None
    edges = [0, *(np.flatnonzero(np.diff(sequence.role)) + 1).tolist(), len(sequence.role)]
    return [
        (ROLES[sequence.role[a]], tokenizer.decode(sequence.tokens[a:b].tolist())) for a, b in pairwise(edges)
    ]


def check_chatml(tokenizer: Any, sequence: TokenSequence, talk: list[dict[str, str]]) -> None:
    """Headers are the template's, each turn is its text with the closing."""
    wanted = []
    for message in talk:
        wanted.append(("template", f"<|im_start|>{message['role']}\n"))
        wanted.append((message["role"], f"{message['content']}<|im_end|>\n"))
    assert runs(tokenizer, sequence) == wanted


def check_llama(tokenizer: Any, sequence: TokenSequence, talk: list[dict[str, str]]) -> None:
    """The system message stands inside the first question; its surroundings are the template's."""
    system, ask, say, more, fine = talk
    assert runs(tokenizer, sequence) == [
        ("template", "<|endoftext|>[INST] <<SYS>>\n"),
        ("system", system["content"]),
        ("template", "\n<</SYS>>\n\n"),
        ("user", ask["content"] + " [/INST]"),
        ("template", " "),
        ("assistant", say["content"] + " <|endoftext|>"),
        ("template", "<|endoftext|>[INST] "),
        ("user", more["content"] + " [/INST]"),
        ("template", " "),
        ("assistant", fine["content"] + " <|endoftext|>"),
    ]


def split_texts(check: Callable[..., None], talk: list[dict[str, str]]) -> list[dict[str, str]]:
    """The talk with spaced texts for a template that strips, so that stripping is seen."""
    spaced = [{**m, "content": f"  {m['content']}\n"} if m["role"] == "assistant" else m for m in talk]
    return spaced if check is check_llama else talk


class SplitTokenizer:
    """Makes every character of the embedded tokenizer's text a token, so that no token spans two turns."""

    @staticmethod
    def make(template: str) -> Any:
        from tokenizers import Tokenizer

        tokenizer = embedded_tokenizer(template)
        rules = tokenizer.backend_tokenizer.to_str()
        plain = Tokenizer.from_str(rules)
        plain.model = type(plain.model)(vocab=plain.get_vocab(with_added_tokens=False), merges=[])
        tokenizer._tokenizer = plain
        return tokenizer


@pytest.mark.parametrize(("template", "check"), [(CHATML, check_chatml), (LLAMA, check_llama)])
def test_roles_are_those_of_the_turns(tmp_path: Path, template: str, check: Callable[..., None]) -> None:
    tokenizer = SplitTokenizer.make(template)
    (sequence,) = read(tokenizer, tmp_path, [split_texts(check, TALK)])
    check(tokenizer, sequence, TALK)
    for shift in (1, -1):  # a mask that is off by one token is seen
        assert sequence.role is not None
        moved = TokenSequence(sequence.tokens, sequence.document, np.roll(sequence.role, shift))
        with pytest.raises(AssertionError):
            check(tokenizer, moved, TALK)


@pytest.mark.parametrize("template", [CHATML, LLAMA])
def test_tokens_are_those_of_the_template(tmp_path: Path, template: str) -> None:
    tokenizer = embedded_tokenizer(template)
    talks = [TALK, TALK[1:3], TALK[1:2]]
    for sequence in read(tokenizer, tmp_path, talks):
        talk = talks[int(sequence.new_documents[0].split("#")[1]) - 1]
        wanted = tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False)
        assert sequence.tokens.tolist() == wanted


@pytest.mark.parametrize("template", [CHATML, LLAMA])
def test_the_words_of_each_role_are_found_among_its_tokens(tmp_path: Path, template: str) -> None:
    """With real merges a token may hold a neighbouring space, but never lacks a part of the text."""
    tokenizer = embedded_tokenizer(template)
    (sequence,) = read(tokenizer, tmp_path, [TALK])
    turns = [(role, text) for role, text in runs(tokenizer, sequence) if role != "template"]
    assert [role for role, _ in turns] == [message["role"] for message in TALK]
    for (_, text), message in zip(turns, TALK, strict=True):
        assert message["content"] in text
        assert len(text) <= len(message["content"]) + 20
        assert "<|im_start|>" not in text


@settings(max_examples=40)
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\ue000\ue001"), max_size=12),
        min_size=1,
        max_size=6,
    ),
    system=st.none() | st.text("ab c\n", min_size=1, max_size=8),
)
def test_chatml_roles_for_any_text(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], system: str | None
) -> None:
    talk = [{"role": "system", "content": system}] if system else []
    talk += [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    if not any(message["content"].strip() for message in talk):
        return
    tokenizer = TOKENIZERS.setdefault("split", SplitTokenizer.make(CHATML))
    (sequence,) = read(tokenizer, tmp_path_factory.mktemp("talk"), [talk], n_ctx=4096)
    assert sequence.role is not None
    written = [m for m in talk if m["content"]]
    said = "".join(m["content"] + "<|im_end|>\n" for m in written)
    marked = sequence.tokens[sequence.role > 0].tolist()
    assert tokenizer.decode(marked) == said


TOKENIZERS: dict[str, Any] = {}


def conversations() -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": "No. " * i}] for i in
            range(1, 13)]  # fmt: skip


def in_jsonl(folder: Path) -> str:
    return write_jsonl(folder / "c.jsonl.gz", [{"messages": talk} for talk in conversations()])


def in_sharegpt(folder: Path) -> str:
    names = {"user": "human", "assistant": "gpt"}
    rows = [[{"from": names[m["role"]], "value": m["content"]} for m in talk] for talk in conversations()]
    return write_jsonl(folder / "c.jsonl", [{"messages": row} for row in rows])


def in_parquet(folder: Path) -> str:
    return write_parquet(folder / "c.parquet", {"messages": conversations()})


def on_disk(folder: Path) -> str:
    datasets.Dataset.from_dict({"messages": conversations()}).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


@pytest.mark.parametrize("make", [in_jsonl, in_sharegpt, in_parquet, on_disk], ids=lambda f: f.__name__)
def test_every_kind_of_record_holds_conversations(tmp_path: Path, make: Callable[[Path], str]) -> None:
    tokenizer = embedded_tokenizer(CHATML)
    sequences = read_sequences(tokenizer, make(tmp_path), n_ctx=256, layout="chat")
    assert sequences.roles == ["template", "system", "user", "assistant", "tool"]
    whole = list(sequences)
    wanted = [tokenizer.apply_chat_template(t, tokenize=True, return_dict=False) for t in conversations()]
    assert sorted(s.tokens.tolist() for s in whole) == sorted(wanted)
    assert all(same(a, b) for a, b in zip(sequences, whole, strict=True))
    assert [int(s.document[0]) for s in whole] == list(range(12))


def test_the_date_of_a_template_is_fixed(tmp_path: Path) -> None:
    tokenizer = embedded_tokenizer(DATED)
    (sequence,) = read(tokenizer, tmp_path, [TALK])
    assert tokenizer.decode(sequence.tokens.tolist()).startswith("Today: 26 July 2024\n<|im_start|>")
    source = str(tmp_path / "talk.jsonl")
    description = read_sequences(tokenizer, source, n_ctx=256, layout="chat").description
    assert description["template_date"] == "2024-07-26"


JSON_TOOL = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | tojson }}{% endfor %}"


def test_text_that_a_template_writes_as_json_is_found(tmp_path: Path) -> None:
    tokenizer = SplitTokenizer.make(JSON_TOOL)
    talk = [{"role": "user", "content": 'a "quoted"\nline'}, {"role": "tool", "content": "é\t{}"}]
    (sequence,) = read(tokenizer, tmp_path, [talk])
    assert runs(tokenizer, sequence) == [
        ("template", '<user>"'), ("user", 'a \\"quoted\\"\\nline"'), ("template", '<tool>"'), ("tool", 'é\\t{}"'),
    ]  # fmt: skip


def test_tool_calls_go_to_the_template(tmp_path: Path) -> None:
    template = CHATML.replace(
        "m['content'] +", "m['content'] + (m['tool_calls'] | tojson if m['tool_calls'] else '') +"
    )
    tokenizer = SplitTokenizer.make(template)
    call = {"role": "assistant", "content": "Calling.", "tool_calls": [{"name": "f"}]}
    (sequence,) = read(tokenizer, tmp_path, [[ASK, call, {"role": "tool", "content": "4"}]])
    assert ("assistant", 'Calling.[{"name": "f"}]<|im_end|>\n') in runs(tokenizer, sequence)
    assert runs(tokenizer, sequence)[-1] == ("tool", "4<|im_end|>\n")


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    spans=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4)), max_size=12),
)
def test_a_token_takes_the_last_label_in_its_span(labels: list[int], spans: list[tuple[int, int]]) -> None:
    ranges = np.array([(a, a + n) for a, n in spans], dtype=np.int64).reshape(-1, 2)
    found = token_roles(ranges, np.array(labels, dtype=np.uint8))
    wanted = [next((x for x in reversed(labels[a : a + n]) if x), 0) for a, n in spans]
    assert found.tolist() == wanted
