"""Packing: blocks as one array, the same as before from any source of text."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.support import TEXTS, ByteTokenizer, bert_tokenizer, embedded_tokenizer, write_jsonl
from workbench.errors import UserError
from workbench.text import find_text, pack


def write(folder: Path, **texts: str) -> str:
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return str(folder / "*.txt")


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


def plain_packing(
    texts: dict[str, str], n_tokens: int, n_ctx: int, seed: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What packing means, written as plainly as possible: join, cut, put the first token before."""
    order = sorted(texts, key=lambda name: hashlib.sha256(f"{seed}|{name}".encode()).hexdigest())
    width, flat, origin, names = n_ctx - 1, [], [], []
    wanted = -(-n_tokens // width) * width
    for name in order:
        if len(flat) >= wanted:
            break
        ids = [0, *(b + 1 for b in texts[name].encode())]
        flat += ids
        origin += [len(names)] * len(ids)
        names.append(name)
    n = min(len(flat), wanted) // width
    tokens = [[0, *flat[i * width : (i + 1) * width]] for i in range(n)]
    document = [[origin[i * width], *origin[i * width : (i + 1) * width]] for i in range(n)]
    return np.array(tokens), np.array(document), names


@settings(max_examples=40)
@given(
    texts=st.lists(st.text("abcé ", min_size=1, max_size=40).filter(str.strip), min_size=3, max_size=9),
    n_tokens=st.integers(1, 200),
    n_ctx=st.integers(2, 30),
    seed=st.integers(0, 5),
)
def test_blocks_are_the_plain_packing(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], n_tokens: int, n_ctx: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("text")
    named = {f"t{i}.txt": text + "." * 10 for i, text in enumerate(texts)}
    for name, text in named.items():
        (folder / name).write_text(text)
    blocks = pack(ByteTokenizer(), str(folder / "*.txt"), n_tokens=n_tokens, n_ctx=n_ctx, seed=seed)
    tokens, document, names = plain_packing(named, n_tokens, n_ctx, seed)
    assert np.array_equal(blocks.tokens.numpy(), tokens)
    assert np.array_equal(blocks.document.numpy(), document)
    assert blocks.documents == names


def test_a_fast_tokenizer_packs_as_text_by_text() -> None:
    """Groups and the private copy of the tokenizer change nothing: the ids are those of `encode`."""
    tokenizer = embedded_tokenizer()
    blocks = pack(tokenizer, "stdlib", n_tokens=30_000, n_ctx=64, seed=5)
    texts = {f.name: f for f in find_text("stdlib")}
    flat = []
    for name in blocks.documents:
        flat += [tokenizer.eos_token_id, *tokenizer.encode(texts[name].read(), add_special_tokens=False)]
    assert blocks.tokens[:, 1:].flatten().tolist() == flat[: blocks.tokens[:, 1:].numel()]
    assert len(blocks.documents) > 3


def test_pack_reads_records_too(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in TEXTS])
    blocks = pack(ByteTokenizer(), source, n_tokens=600, n_ctx=31)
    assert blocks.tokens.shape == (20, 31)
    assert all(name.startswith("c.jsonl#") for name in blocks.documents)


def test_bert_blocks_are_closed(tmp_path: Path) -> None:
    source = write(tmp_path, **{f"t{i}": f"w{i} " * 10 for i in range(8)})
    blocks = pack(bert_tokenizer(), source, n_tokens=40, n_ctx=10)
    assert blocks.tokens.shape == (5, 10)
    assert set(blocks.tokens[:, 0].tolist()) == {bert_tokenizer().cls_token_id}
    assert set(blocks.tokens[:, -1].tolist()) == {bert_tokenizer().sep_token_id}
    assert torch.equal(blocks.document[:, 0], blocks.document[:, 1])
    assert torch.equal(blocks.document[:, -1], blocks.document[:, -2])


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 4 tokens, less than one block of 16"):
        pack(ByteTokenizer(), write(tmp_path, a="abc"), n_tokens=10, n_ctx=16)


def test_no_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="n_tokens 0 must be at least 1"):
        pack(ByteTokenizer(), write(tmp_path, a="abc"), n_tokens=0, n_ctx=16)


def test_no_room_for_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="n_ctx 1 leaves no room for text beside 1 special tokens"):
        pack(ByteTokenizer(), write(tmp_path, a="abc"), n_tokens=10, n_ctx=1)
