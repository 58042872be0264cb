"""Files of a corpus: the held-out split, and what is no text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.text.support import ByteTokenizer
from workbench.errors import UserError
from workbench.text import find_text, is_held_out, pack, read_sequences


def test_split_of_the_standard_library_is_a_partition() -> None:
    train, held = find_text("stdlib"), find_text("stdlib-heldout")
    assert not {f.name for f in train} & {f.name for f in held}
    assert all(is_held_out(f.name) for f in held)
    assert 0.02 < len(held) / (len(train) + len(held)) < 0.06


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("  \n")
    with pytest.raises(UserError, match=r"a\.txt' is empty"):
        pack(ByteTokenizer(), str(tmp_path / "*.txt"), n_tokens=10, n_ctx=4)


def test_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc\0def")
    with pytest.raises(UserError, match="is binary"):
        pack(ByteTokenizer(), str(tmp_path / "a.txt"), n_tokens=10, n_ctx=4)


def test_other_encodings_are_refused_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(UserError, match=r"not UTF-8 \(byte 3\)"):
        pack(ByteTokenizer(), str(tmp_path / "a.txt"), n_tokens=10, n_ctx=4)


def test_no_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="matches no file"):
        find_text(str(tmp_path / "none" / "*.txt"))


@pytest.mark.parametrize("source", ["", "no/such/folder"])
def test_no_source_is_refused(source: str) -> None:
    with pytest.raises(UserError, match="matches no file: give 'stdlib'"):
        read_sequences(ByteTokenizer(), source, n_ctx=8)


def test_a_file_that_disappears_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    sequences = read_sequences(ByteTokenizer(), str(tmp_path / "a.txt"), n_ctx=4)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"a\.txt' could not be read: No such file"):
        list(sequences)
    with pytest.raises(UserError, match=r"a\.txt' could not be read: No such file"):
        _ = sequences.description


def test_an_unreadable_file_does_not_hide_the_text_before_it(tmp_path: Path) -> None:
    """An error comes in its place, however many documents are tokenised at once."""
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"text {i} " * 4)
    whole = read_sequences(ByteTokenizer(), str(tmp_path / "*.txt"), n_ctx=64, layout="documents")
    order = [sequence.new_documents[0] for sequence in whole]
    (tmp_path / order[4]).write_bytes(b"\0")
    stream = iter(whole)
    assert [next(stream).new_documents[0] for _ in range(4)] == order[:4]
    with pytest.raises(UserError, match="is binary"):
        next(stream)
