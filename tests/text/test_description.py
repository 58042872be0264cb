"""Identity: equal descriptions mean equal sequences, and every difference that matters shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.text.support import (
    CHATML,
    DATED,
    TEXTS,
    ByteTokenizer,
    bert_tokenizer,
    embedded_tokenizer,
    write_jsonl,
)
from workbench.text import identity, read_sequences
from workbench.text.files import TextFile
from workbench.text.identity import files_identity


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    rows = [{"text": text, "other": text, "messages": [{"role": "user", "content": text}]} for text in TEXTS]
    return write_jsonl(tmp_path / "c.jsonl", rows)


def describe(tokenizer: Any, source: str, **options: Any) -> dict[str, Any]:
    return read_sequences(tokenizer, source, **{"n_ctx": 32, **options}).description


def test_a_description_needs_no_tokenising(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = read_sequences(embedded_tokenizer(), corpus, n_ctx=32)
    monkeypatch.setattr("workbench.text.encoder.Encoder.ids", None)
    description = sequences.description
    assert json.loads(json.dumps(description)) == description
    wanted = {"source", "kind", "layout", "column", "split", "n_ctx", "seed", "tokenizer_sha256", "files"}
    assert wanted <= set(description)
    assert description["files"]["digest"] == "whole"
    without_source = json.dumps({**description, "source": ""})
    assert str(Path(corpus).parent) not in without_source


def test_equal_inputs_give_equal_descriptions(corpus: str) -> None:
    assert describe(embedded_tokenizer(), corpus) == describe(embedded_tokenizer(), corpus)


def test_use_of_the_tokenizer_changes_nothing(corpus: str) -> None:
    """Truncation that someone switches on belongs to the caller, not to the stream."""
    tokenizer = embedded_tokenizer()
    before = describe(tokenizer, corpus)
    whole = [s.tokens.tolist() for s in read_sequences(tokenizer, corpus, n_ctx=32)]
    tokenizer(["long " * 50], truncation=True, max_length=3, padding="max_length")
    assert tokenizer.backend_tokenizer.truncation is not None
    assert describe(tokenizer, corpus) == before
    assert [s.tokens.tolist() for s in read_sequences(tokenizer, corpus, n_ctx=32)] == whole


@pytest.mark.parametrize("change", [{"n_ctx": 33}, {"seed": 1}, {"layout": "documents"}, {"column": "other"}])
def test_every_option_shows(corpus: str, change: dict[str, Any]) -> None:
    assert describe(ByteTokenizer(), corpus, **change) != describe(ByteTokenizer(), corpus)


class OtherBytes(ByteTokenizer):
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [255 - b for b in text.encode()]


OtherBytes.__qualname__ = ByteTokenizer.__qualname__


class OtherEnd(ByteTokenizer):
    eos_token_id = 5


OtherEnd.__qualname__ = ByteTokenizer.__qualname__


def test_every_tokenizer_shows(corpus: str) -> None:
    added = embedded_tokenizer()
    added.add_tokens(["naïve"])
    literal = embedded_tokenizer()
    literal.split_special_tokens = True
    made = [ByteTokenizer(), OtherBytes(), OtherEnd(), bert_tokenizer(), embedded_tokenizer(), added, literal]
    digests = [describe(tokenizer, corpus)["tokenizer_sha256"] for tokenizer in made]
    assert len(set(digests)) == len(made)


def test_the_chat_template_shows(corpus: str) -> None:
    one, other = (describe(embedded_tokenizer(t), corpus, layout="chat", n_ctx=256) for t in (CHATML, DATED))
    assert one["chat_template_sha256"] != other["chat_template_sha256"]
    assert one["tokenizer_sha256"] == other["tokenizer_sha256"]


def test_content_shows_and_place_does_not(tmp_path: Path) -> None:
    files = []
    for folder, text in (("a", "one text"), ("b", "one text"), ("c", "one texT")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.txt").write_text(text)
        files.append(describe(ByteTokenizer(), str(tmp_path / folder / "*.txt"), n_ctx=4)["files"])
    assert files[0] == files[1] != files[2]
    (tmp_path / "b" / "t.txt").rename(tmp_path / "b" / "u.txt")
    assert describe(ByteTokenizer(), str(tmp_path / "b" / "*.txt"), n_ctx=4)["files"] != files[0]


def test_large_corpora_are_known_by_their_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ends count, the middle does not, and the description says which it was."""
    monkeypatch.setattr(identity, "WHOLE_LIMIT_BYTES", 99)
    monkeypatch.setattr(identity, "END_BYTES", 10)
    path = tmp_path / "t.txt"

    def made(text: str) -> dict[str, Any]:
        path.write_text(text)
        return files_identity([TextFile("t.txt", path)])

    base = made("a" * 100)
    assert base["digest"] == "ends"
    assert made("a" * 50 + "b" + "a" * 49) == base
    assert made("a" * 99 + "b") != base
    assert made("b" + "a" * 99) != base
    assert made("a" * 101) != base
    assert made("a" * 99)["digest"] == "whole"
