"""Corpora: reading, the held-out split, packing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import UserError
from workbench.text import find_text, is_held_out, pack


class ByteTokenizer:
    """UTF-8 bytes plus one, with 0 as beginning and end of text."""

    bos_token_id = eos_token_id = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [b + 1 for b in text.encode()]


def write(folder: Path, **texts: str) -> str:
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return str(folder / "*.txt")


def test_split_of_the_standard_library_is_a_partition() -> None:
    train, held = find_text("stdlib"), find_text("stdlib-heldout")
    assert not {f.name for f in train} & {f.name for f in held}
    assert all(is_held_out(f.name) for f in held)
    assert 0.02 < len(held) / (len(train) + len(held)) < 0.06


def test_every_row_leads_back_to_its_text(tmp_path: Path) -> None:
    source = write(tmp_path, a="alpha " * 30, b="beta " * 30, c="gamma " * 30)
    blocks = pack(ByteTokenizer(), source, n_tokens=400, n_ctx=16, seed=3)
    for index, name in enumerate(blocks.documents):
        ids = blocks.tokens[:, 1:][blocks.document[:, 1:] == index]
        text = bytes((ids[1:] - 1).to(torch.uint8).tolist()).decode()
        assert ids[0] == 0
        assert (tmp_path / name).read_text().startswith(text)


def test_block_starts_with_the_beginning_of_text(tmp_path: Path) -> None:
    blocks = pack(ByteTokenizer(), write(tmp_path, a="x" * 500), n_tokens=100, n_ctx=11)
    assert blocks.tokens.shape == (10, 11)
    assert (blocks.tokens[:, 0] == 0).all()


@given(n_tokens=st.integers(1, 300), n_ctx=st.integers(2, 40))
def test_size_is_the_wanted_number_rounded_up_to_blocks(
    tmp_path_factory: pytest.TempPathFactory, n_tokens: int, n_ctx: int
) -> None:
    folder = tmp_path_factory.mktemp("text")
    blocks = pack(ByteTokenizer(), write(folder, a="x" * 600), n_tokens=n_tokens, n_ctx=n_ctx)
    assert len(blocks.tokens) == -(-n_tokens // (n_ctx - 1))


def test_seed_decides_the_order_and_nothing_else(tmp_path: Path) -> None:
    source = write(tmp_path, **{f"t{i}": f"{i}" * 50 for i in range(8)})
    one, same, other = (pack(ByteTokenizer(), source, n_tokens=150, n_ctx=8, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.tokens, same.tokens)
    assert one.description == same.description
    assert one.description["tokens_sha256"] != other.description["tokens_sha256"]


def test_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.txt' is empty"):
        pack(ByteTokenizer(), write(tmp_path, a="  \n"), n_tokens=10, n_ctx=4)


def test_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc\0def")
    with pytest.raises(UserError, match="is binary"):
        pack(ByteTokenizer(), str(tmp_path / "a.txt"), n_tokens=10, n_ctx=4)


def test_other_encodings_are_refused_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(UserError, match=r"not UTF-8 \(byte 3\)"):
        pack(ByteTokenizer(), str(tmp_path / "a.txt"), n_tokens=10, n_ctx=4)


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 4 tokens, less than one block of 16"):
        pack(ByteTokenizer(), write(tmp_path, a="abc"), n_tokens=10, n_ctx=16)


def test_no_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="matches no file"):
        find_text(str(tmp_path / "none" / "*.txt"))
