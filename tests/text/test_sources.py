"""Every kind of source: real text comes back, named, in an order that seed and corpus decide."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import datasets
import pytest

from tests.text.support import (
    TEXTS,
    ByteTokenizer,
    documents_of,
    drained,
    embedded_tokenizer,
    same,
    write_jsonl,
    write_parquet,
)
from workbench.text import order, read_sequences


def text_files(folder: Path) -> str:
    for i, text in enumerate(TEXTS):
        (folder / f"{i}.txt").write_text(text)
    return str(folder / "*.txt")


def jsonl(folder: Path) -> str:
    return write_jsonl(folder / "c.jsonl", [{"text": text, "n": i} for i, text in enumerate(TEXTS)])


def jsonl_gz(folder: Path) -> str:
    return write_jsonl(folder / "c.jsonl.gz", [{"text": text} for text in TEXTS])


def jsonl_glob(folder: Path) -> str:
    write_jsonl(folder / "a.ndjson", [{"text": text} for text in TEXTS[:11]])
    write_jsonl(folder / "b.ndjson", [{"text": text} for text in TEXTS[11:]])
    return str(folder / "*.ndjson")


def parquet(folder: Path) -> str:
    return write_parquet(folder / "c.parquet", {"text": TEXTS, "n": list(range(len(TEXTS)))})


def saved(folder: Path) -> str:
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


def saved_splits(folder: Path) -> str:
    train, test = datasets.Dataset.from_dict({"text": TEXTS}), datasets.Dataset.from_dict({"text": ["no"]})
    datasets.DatasetDict({"test": test, "train": train}).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


def directory(folder: Path) -> str:
    (folder / "data").mkdir()
    write_jsonl(folder / "data" / "train.jsonl", [{"text": text} for text in TEXTS])
    write_jsonl(folder / "data" / "test.jsonl", [{"text": "no"}])
    return str(folder / "data")


KINDS = [text_files, jsonl, jsonl_gz, jsonl_glob, parquet, saved, saved_splits, directory]
each_kind = pytest.mark.parametrize("make", KINDS, ids=lambda f: f.__name__)


@each_kind
@pytest.mark.parametrize("layout", ["packed", "documents"])
def test_the_text_comes_back(tmp_path: Path, make: Callable[[Path], str], layout: str) -> None:
    tokenizer = embedded_tokenizer()
    sequences = read_sequences(tokenizer, make(tmp_path), n_ctx=24, layout=layout)
    found = documents_of(sequences)
    texts = [tokenizer.decode([i for i in ids if i]) for ids in found.values()]
    assert len(texts) == len(TEXTS)
    if layout == "packed":  # the last incomplete block is dropped
        tail = texts.pop()
        texts += [text for text in TEXTS if text not in texts and text.startswith(tail)]
    assert sorted(texts) == sorted(TEXTS)


@each_kind
def test_names_lead_to_the_text(tmp_path: Path, make: Callable[[Path], str]) -> None:
    sequences = read_sequences(ByteTokenizer(), make(tmp_path), n_ctx=2000, layout="documents")
    first = {"jsonl": 1, "jsonl_gz": 1, "jsonl_glob": 1}.get(make.__name__, 0)
    for name, ids in documents_of(sequences).items():
        number = int(name.split("#")[1]) - first if "#" in name else int(name.removesuffix(".txt"))
        number += 11 if name.startswith("b.ndjson") else 0
        assert ByteTokenizer.text(ids) == TEXTS[number]


@each_kind
def test_order_does_not_depend_on_how_much_is_taken(tmp_path: Path, make: Callable[[Path], str]) -> None:
    sequences = read_sequences(ByteTokenizer(), make(tmp_path), n_ctx=32)
    whole = list(sequences)
    for n in (1, 7, len(whole)):
        assert all(same(a, b) for a, b in zip(islice(sequences, n), whole, strict=False))
    one, other = iter(sequences), iter(sequences)
    assert all(same(next(one), next(other)) for _ in range(5))
    assert same(next(one), whole[5])


@each_kind
def test_seed_decides_the_order(tmp_path: Path, make: Callable[[Path], str]) -> None:
    source = make(tmp_path)
    names = [
        list(documents_of(read_sequences(ByteTokenizer(), source, n_ctx=500, layout="documents", seed=seed)))
        for seed in (0, 0, 1)
    ]
    assert names[0] == names[1] != names[2]
    assert sorted(names[0]) == sorted(names[2])


@each_kind
def test_a_thread_reads_the_same(tmp_path: Path, make: Callable[[Path], str]) -> None:
    sequences = read_sequences(embedded_tokenizer(), make(tmp_path), n_ctx=32)
    read: list = []
    thread = threading.Thread(target=lambda: read.extend(sequences))
    thread.start()
    here = list(sequences)
    thread.join()
    assert len(read) == len(here)
    assert all(same(a, b) for a, b in zip(read, here, strict=True))


@pytest.mark.parametrize("make", [jsonl_gz, parquet, directory], ids=lambda f: f.__name__)
def test_windows_bound_the_shuffle(
    tmp_path: Path, make: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small windows keep the records' order between them, and lose none."""
    monkeypatch.setattr(order, "WINDOW_RECORDS", 4)
    sequences = read_sequences(ByteTokenizer(), make(tmp_path), n_ctx=500, layout="documents")
    numbers = [int(name.split("#")[1]) for name in documents_of(sequences)]
    base = 1 if make is jsonl_gz else 0
    assert sorted(numbers) == list(range(base, len(TEXTS) + base))
    assert numbers != sorted(numbers)
    if make is not parquet:  # row groups have an order of their own
        assert all(abs(n - base - place) < 4 for place, n in enumerate(numbers))


def test_group_size_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.text import groups

    sequences = read_sequences(embedded_tokenizer(), jsonl(tmp_path), n_ctx=32)
    whole = list(sequences)
    monkeypatch.setattr(groups, "FIRST_CHARACTERS", 1)
    monkeypatch.setattr(groups, "MOST_DOCUMENTS", 3)
    assert all(same(a, b) for a, b in zip(sequences, whole, strict=True))


def test_hub_datasets_are_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, real, asked = directory(tmp_path), datasets.load_dataset_builder, []

    def answer(name: str, config: str | None) -> datasets.DatasetBuilder:
        asked.append((name, config))
        return real(local)

    monkeypatch.setattr(datasets, "load_dataset_builder", answer)
    sequences = read_sequences(ByteTokenizer(), "hf:someone/corpus:en", n_ctx=500, layout="documents")
    assert sorted(ByteTokenizer.text(ids) for ids in documents_of(sequences).values()) == sorted(TEXTS)
    assert asked == [("someone/corpus", "en")]
    assert sequences.description["hub"]["name"] == "someone/corpus"
    assert sequences.description["hub"]["config"] == "en"
    assert sequences.description["hub"]["revision"]
    assert sequences.description["split"] == "train"
    plain = read_sequences(ByteTokenizer(), "hf:corpus", n_ctx=500, split="test")
    assert asked[1:] == [("corpus", None)]
    assert plain.description != sequences.description


def test_blank_records_are_skipped_and_counted(tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"text": "  "}, {"text": None}, {"text": "two"}, {"text": ""}]
    source = write_jsonl(tmp_path / "c.jsonl", rows)
    with Path(source).open("a") as file:
        file.write("\n")
    sequences, rest = drained(iter(read_sequences(ByteTokenizer(), source, n_ctx=9, layout="documents")))
    skipped = sum((Counter(part.skipped) for part in [*sequences, rest]), Counter())
    assert skipped == {"empty documents": 4}
    assert sorted(s.new_documents[0] for s in sequences) == ["c.jsonl#1", "c.jsonl#4"]
