"""Records that cannot be read: the message names the file, the line, the column and what is near."""

from __future__ import annotations

import gzip
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.support import TEXTS, ByteTokenizer, write_jsonl, write_parquet
from workbench.errors import UserError
from workbench.text import read_sequences
from workbench.text.jsonl import line_edges
from workbench.text.order import permutation


def read(source: str, **options: Any) -> list:
    return list(read_sequences(ByteTokenizer(), source, **{"n_ctx": 8, "layout": "documents", **options}))


BAD_LINES = {
    b'{"text": "a"': r"line 2 of .*c\.jsonl' is not JSON \(.*\): correct or remove it",
    b'["a"]': r"line 2 of .*c\.jsonl' is a JSON list, not an object with named columns",
    b'{"text": "caf\xe9"}': r"line 2 of .*c\.jsonl' is not UTF-8 \(byte 13\)",
    b'{"txt": "a", "n": 1}': r"line 2 of .*c\.jsonl' has no column 'text'; the nearest: txt",
    b'{"text": 3}': r"line 2 of .*c\.jsonl': column 'text' holds int, not text: name another column",
    b'{"text": [{"role": "user"}]}': r"column 'text' holds list, not text: take layout 'chat'",
}


@pytest.mark.parametrize("line", BAD_LINES)
@pytest.mark.parametrize("compressed", [False, True])
def test_bad_lines_are_refused_with_their_place(tmp_path: Path, line: bytes, compressed: bool) -> None:
    path = tmp_path / ("c.jsonl.gz" if compressed else "c.jsonl")
    data = b'{"text": "one"}\n' + line + b'\n{"text": "two"}\n'
    path.write_bytes(gzip.compress(data) if compressed else data)
    with pytest.raises(UserError, match=BAD_LINES[line].replace("jsonl'", r"jsonl(\.gz)?'")):
        read(str(path))


def test_a_byte_order_mark_and_a_missing_last_newline_are_fine(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n{"text": "two"}')
    found = {s.new_documents[0]: ByteTokenizer.text(s.tokens) for s in read(str(tmp_path / "c.jsonl"))}
    assert found == {"c.jsonl#1": "one", "c.jsonl#2": "two"}


@given(data=st.binary(max_size=80).map(lambda b: b.replace(b"\x00", b"\n")))
def test_line_edges_are_those_of_readlines(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("lines") / "c.jsonl"
    path.write_bytes(data)
    with path.open("rb") as file:
        lines = file.readlines()
    assert line_edges(path).tolist() == [0, *np.cumsum([len(line) for line in lines], dtype=int).tolist()]


def test_lines_are_found_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.text.jsonl.CHUNK_BYTES", 7)
    source = write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in TEXTS])
    found = {ByteTokenizer.text(s.tokens) for s in read(source, n_ctx=500)}
    assert found == set(TEXTS)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"text": "one"}\n' * 500)
    for data in (b"plain text", whole[:-12]):
        (tmp_path / "c.jsonl.gz").write_bytes(data)
        with pytest.raises(UserError, match=r"c\.jsonl\.gz' is no whole gzip file"):
            read(str(tmp_path / "c.jsonl.gz"))


def test_bad_parquet_is_refused(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "c.parquet", {"content": TEXTS, "n": list(range(len(TEXTS)))})
    with pytest.raises(UserError, match=r"c\.parquet' has no column 'contents'; the nearest: content"):
        read(source, column="contents")
    with pytest.raises(UserError, match=r"row \d+ of .*c\.parquet': column 'n' holds int, not text"):
        read(source, column="n")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(UserError, match=r"c\.parquet' is no whole Parquet file"):
        read(source)


def test_bad_datasets_are_refused(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_dict({"content": TEXTS})
    saved.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(UserError, match=r"one' has no column 'text'; the nearest: content"):
        read(str(tmp_path / "one"))
    with pytest.raises(UserError, match=r"one' has no split 'test'; known: train"):
        read(str(tmp_path / "one"), column="content", split="test")
    with pytest.raises(UserError, match=r"two' has no split 'tests'; the nearest: test"):
        read(str(tmp_path / "two"), column="content", split="tests")
    assert len(read(str(tmp_path / "two"), column="content", split="test", n_ctx=500)) == len(TEXTS)
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(UserError, match=r"dataset directory .*one' could not be read"):
        read(str(tmp_path / "one"), column="content")


def test_bad_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    with pytest.raises(UserError, match=r"is a directory without data files .*: for text files give a glob"):
        read(str(tmp_path / "texts"))
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "train.jsonl", [{"content": text} for text in TEXTS])
    with pytest.raises(
        UserError, match=r"row 0 of dataset 'data/train' has no column 'text'; the nearest: content"
    ):
        read(str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"data' has no split 'test'; known: train"):
        read(str(tmp_path / "data"), split="test")
    (tmp_path / "data" / "train.jsonl").write_text("no JSON\n")
    with pytest.raises(UserError, match=r"dataset 'data/train' could not be read to its end"):
        read(str(tmp_path / "data"))


def test_a_hub_that_does_not_answer_is_a_sentence() -> None:
    with pytest.raises(UserError, match="dataset 'no-one/nothing' could not be opened"):
        read("hf:no-one/nothing")
    for source in ("hf:", "hf:a:b:c"):
        with pytest.raises(UserError, match="names no dataset: give hf:NAME or hf:NAME:CONFIG"):
            read(source)


def test_options_that_do_not_apply_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=r"column 'x' was given, but text .* is plain text without columns"):
        read(str(tmp_path / "a.txt"), column="x")
    with pytest.raises(UserError, match=r"split 'test' was given, but text .* is no dataset with splits"):
        read(str(tmp_path / "a.txt"), split="test")
    write_jsonl(tmp_path / "b.jsonl", [{"text": "a"}])
    with pytest.raises(UserError, match=r"matches files of several kinds \(jsonl, text\): name one kind"):
        read(str(tmp_path / "*"))


def test_permutations_are_whole_and_stay_the_same() -> None:
    """The order is part of stored results: these numbers must not change with a library."""
    assert permutation(8, "0|corpus.jsonl").tolist() == [7, 5, 4, 6, 2, 0, 1, 3]
    assert sorted(permutation(1000, "key").tolist()) == list(range(1000))
    assert permutation(0, "key").tolist() == []


def test_a_large_file_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking a little parses a little: lines are parsed when their turn comes."""
    from workbench.text import jsonl

    source = write_jsonl(tmp_path / "c.jsonl", [{"text": "x" * 1000} for _ in range(2000)])
    parsed, real = [], jsonl.parse_line
    monkeypatch.setattr(jsonl, "parse_line", lambda line, where: parsed.append(where) or real(line, where))
    taken = list(islice(read_sequences(ByteTokenizer(), source, n_ctx=64), 3))
    assert len(taken) == 3
    assert 0 < len(parsed) < 200
