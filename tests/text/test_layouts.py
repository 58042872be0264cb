"""Packed and documents: what is cut where, which tokens are added, how documents are numbered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.support import (
    ByteTokenizer,
    PlainTokenizer,
    bert_tokenizer,
    documents_of,
    drained,
    write_jsonl,
)
from workbench.errors import UserError
from workbench.text import SpecialTokens, TokenSequence, read_sequences
from workbench.text.packing import one_by_one, packed

SPECIAL = st.builds(
    SpecialTokens,
    first=st.none() | st.just(1001),
    separator=st.none() | st.just(1002),
    last=st.none() | st.just(1003),
)
CORPUS = st.lists(st.lists(st.integers(1, 999), max_size=30), max_size=12)


def named(corpus: list[list[int]]) -> Iterator[tuple[str, np.ndarray]]:
    return ((f"d{i}", np.asarray(ids, dtype=np.int32)) for i, ids in enumerate(corpus))


def check_frame(sequence: TokenSequence, special: SpecialTokens) -> list[int]:
    """The text of a sequence, once its added tokens are found in their places."""
    ids = sequence.tokens.tolist()
    if special.first is not None:
        assert ids.pop(0) == special.first
        assert sequence.document[0] == sequence.document[1]
    if special.last is not None:
        assert ids.pop() == special.last
        assert sequence.document[-1] == sequence.document[-2]
    return ids


@given(corpus=CORPUS, special=SPECIAL, n_ctx=st.integers(3, 17))
def test_packing_joins_cuts_and_loses_only_the_end(
    corpus: list[list[int]], special: SpecialTokens, n_ctx: int
) -> None:
    joined = [t for ids in corpus if ids for t in ([special.separator] if special.separator else []) + ids]
    width = n_ctx - special.n_added
    stream = packed(named(corpus), special, n_ctx=n_ctx, source="corpus")
    if len(joined) < width:
        with pytest.raises(UserError, match=f"has {len(joined)} tokens, less than one block of {n_ctx}"):
            drained(stream)
        return
    sequences, rest = drained(stream)
    text = [token for sequence in sequences for token in check_frame(sequence, special)]
    assert text == joined[: len(joined) // width * width]
    assert all(len(sequence.tokens) == n_ctx for sequence in sequences)
    assert rest.skipped.get("tokens of a last incomplete block", 0) == len(joined) % width
    empty = sum(s.skipped.get("empty documents", 0) for s in [*sequences, rest])
    assert empty == sum(not ids for ids in corpus)
    names = [name for s in sequences for name in s.new_documents] + list(rest.documents)
    assert names == [f"d{i}" for i, ids in enumerate(corpus) if ids]


@given(corpus=CORPUS.filter(any), special=SPECIAL, n_ctx=st.integers(3, 17))
def test_documents_are_cut_alone(corpus: list[list[int]], special: SpecialTokens, n_ctx: int) -> None:
    sequences, rest = drained(one_by_one(named(corpus), special, n_ctx=n_ctx, source="corpus"))
    texts: dict[int, list[int]] = {}
    for sequence in sequences:
        assert len(set(sequence.document.tolist())) == 1
        assert len(sequence.tokens) <= n_ctx
        texts.setdefault(int(sequence.document[0]), []).extend(check_frame(sequence, special))
    assert list(texts.values()) == [ids for ids in corpus if ids]
    assert list(texts) == list(range(len(texts)))
    width = n_ctx - special.n_added
    assert len(sequences) == sum(-(-len(ids) // width) for ids in corpus)
    assert rest.documents == ()


@given(corpus=CORPUS.filter(any), n_ctx=st.integers(2, 17), layout=st.sampled_from([packed, one_by_one]))
def test_documents_are_announced_when_they_first_appear(
    corpus: list[list[int]], n_ctx: int, layout: Any
) -> None:
    n_announced = 0
    try:
        sequences, _ = drained(layout(named(corpus), SpecialTokens(7, 8), n_ctx=n_ctx, source="corpus"))
    except UserError:
        return
    for sequence in sequences:
        new = set(range(n_announced, n_announced + len(sequence.new_documents)))
        assert new <= set(sequence.document.tolist())
        n_announced += len(new)
        assert sequence.document.max() < n_announced


@pytest.fixture
def words(tmp_path: Any) -> str:
    return write_jsonl(tmp_path / "c.jsonl", [{"text": f"w{i} " * (3 + i)} for i in range(12)])


def test_bert_documents_are_framed(words: str) -> None:
    tokenizer = bert_tokenizer()
    sequences = read_sequences(tokenizer, words, n_ctx=7, layout="documents")
    assert sequences.special == SpecialTokens(
        tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.sep_token_id
    )
    for sequence in sequences:
        assert sequence.tokens[0] == tokenizer.cls_token_id
        assert sequence.tokens[-1] == tokenizer.sep_token_id
        assert tokenizer.cls_token_id not in sequence.tokens[1:]
    found = documents_of(sequences)
    assert sorted(tokenizer.decode(ids) for ids in found.values()) == sorted(
        (f"w{i} " * (3 + i)).strip() for i in range(12)
    )


def test_a_tokenizer_without_special_tokens_adds_none(words: str) -> None:
    sequences = read_sequences(PlainTokenizer(), words, n_ctx=8)
    assert sequences.special == SpecialTokens()
    assert sequences.description["special_tokens"] == {"first": None, "separator": None, "last": None}
    read = list(sequences)
    assert all(len(sequence.tokens) == 8 and (sequence.tokens > 0).all() for sequence in read)


class EndOnly(ByteTokenizer):
    bos_token_id = None
    eos_token_id = 0


def test_the_end_of_text_stands_in_for_a_beginning(words: str) -> None:
    assert read_sequences(EndOnly(), words, n_ctx=8).special == SpecialTokens(0, 0)
    assert all(s.tokens[0] == 0 for s in read_sequences(EndOnly(), words, n_ctx=8, layout="documents"))


def test_an_unknown_layout_is_refused(words: str) -> None:
    with pytest.raises(UserError, match="layout 'pack' is not known; the nearest: packed"):
        read_sequences(ByteTokenizer(), words, n_ctx=8, layout="pack")


@pytest.mark.parametrize("layout", ["packed", "documents"])
def test_a_context_without_room_is_refused(words: str, layout: str) -> None:
    with pytest.raises(
        UserError, match="n_ctx 2 leaves no room for text beside 2 special tokens: give at least 3"
    ):
        read_sequences(bert_tokenizer(), words, n_ctx=2, layout=layout)


def test_a_corpus_of_blank_records_is_refused(tmp_path: Any) -> None:
    source = write_jsonl(tmp_path / "c.jsonl", [{"text": " "}] * 3)
    with pytest.raises(UserError, match=r"no document with text in it \(3 empty documents\)"):
        list(read_sequences(ByteTokenizer(), source, n_ctx=8, layout="documents"))
    with pytest.raises(UserError, match="has 0 tokens, less than one block of 8"):
        list(read_sequences(ByteTokenizer(), source, n_ctx=8))
    (tmp_path / "c.jsonl").write_text("")
    with pytest.raises(UserError, match=r"no document with text in it \(it is empty\)"):
        list(read_sequences(ByteTokenizer(), source, n_ctx=8, layout="documents"))
