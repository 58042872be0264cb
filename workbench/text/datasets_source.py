"""Datasets: one saved to disk, a directory that Hugging Face `datasets` can read, or one of a hub by name.

A dataset saved with `save_to_disk` is memory-mapped and its rows are permuted over the whole split. A
directory of data files and a dataset of a hub are streamed and permuted within windows. Only `"hf:NAME"`
may open a connection. No code of a dataset is run.

Identity: SHA-256 of the files on disk; for a hub the name, the configuration and the revision. A document
is known by its row, counted from 0: `"name/split#17"`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import UserError, nearest
from workbench.text.files import TextFile
from workbench.text.identity import files_identity
from workbench.text.order import permutation, windowed
from workbench.text.records import Record, characters, pick

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder

GROUP_ROWS = 256
DATA_SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet", ".csv", ".tsv", ".arrow", ".gz", ".zst")


@dataclass(frozen=True)
class SavedDataset:
    """One split of a dataset on disk, as `save_to_disk` made it."""

    name: str
    rows: Dataset
    files: list[TextFile]
    column: str
    kind: str = "dataset"

    def describe(self) -> dict[str, Any]:
        """What identifies the content."""
        return {"files": files_identity(self.files)}

    def records(self, seed: int) -> Iterator[Record]:
        """The documents in seeded order."""
        order = permutation(len(self.rows), f"{seed}|{self.name}")
        for start in range(0, len(order), GROUP_ROWS):
            chosen = order[start : start + GROUP_ROWS].tolist()
            for row, value in zip(chosen, self.rows[chosen][self.column], strict=True):
                yield Record(f"{self.name}#{row}", f"row {row} of dataset {self.name!r}", value)


@dataclass(frozen=True)
class StreamedDataset:
    """One split of a dataset that is read from its start to its end."""

    name: str
    builder: DatasetBuilder
    split: str
    identity: dict[str, Any]
    files: list[TextFile]
    column: str
    kind: str

    def describe(self) -> dict[str, Any]:
        """What identifies the content."""
        return {**self.identity, "files": files_identity(self.files) if self.files else None}

    def records(self, seed: int) -> Iterator[Record]:
        """The documents in seeded order.

        Raises:
            UserError: a row lacks the column, or reading fails.
        """
        yield from windowed(self._rows(), key=f"{seed}|{self.name}", size=characters)

    def _rows(self) -> Iterator[Record]:
        with _sentence(f"dataset {self.name!r} could not be read"):
            stream: Any = self.builder.as_streaming_dataset(split=self.split)
        for number, row in enumerate(self._guarded(stream)):
            where = f"row {number} of dataset {self.name!r}"
            yield Record(f"{self.name}#{number}", where, pick(row, self.column, where))

    def _guarded(self, stream: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        with _sentence(f"dataset {self.name!r} could not be read to its end"):
            yield from stream


def open_directory(folder: Path, *, split: str, column: str) -> SavedDataset | StreamedDataset:
    """A dataset in a local directory.

    Raises:
        UserError: the directory holds no data files, or lacks the split or the column.
    """
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return _open_saved(folder, split, column)
    files = [TextFile(p.relative_to(folder).as_posix(), p) for p in _data_files(folder)]
    if not files:
        raise UserError(
            f"text {str(folder)!r} is a directory without data files ({', '.join(DATA_SUFFIXES[:5])}, ...): "
            f"for text files give a glob such as {str(folder / '*.txt')!r}"
        )
    builder = _builder(str(folder), None)
    _check_split(builder, str(folder), split)
    name = f"{folder.resolve().name}/{split}"
    return StreamedDataset(name, builder, split, {}, files, column, "dataset")


def open_hub(source: str, *, split: str, column: str) -> StreamedDataset:
    """A dataset of a hub, from `"hf:NAME"` or `"hf:NAME:CONFIG"`; this is the source that may use the network.

    Raises:
        UserError: no hub answers, or there is no such dataset, configuration or split.
    """
    _, name, *rest = source.split(":")
    if not name or len(rest) > 1:
        raise UserError(f"text {source!r} names no dataset: give hf:NAME or hf:NAME:CONFIG")
    config = rest[0] if rest else None
    builder = _builder(name, config)
    _check_split(builder, name, split)
    identity = {"hub": {"name": name, "config": config, "revision": builder.hash}}
    return StreamedDataset(f"{name}/{split}", builder, split, identity, [], column, "hub")


def _open_saved(folder: Path, split: str, column: str) -> SavedDataset:
    rows, place = _saved_rows(folder, split)
    if column not in rows.column_names:
        raise UserError(
            f"dataset {str(folder)!r} has no column {column!r}; {nearest(column, rows.column_names)}"
        )
    files = [TextFile(p.relative_to(place).as_posix(), p) for p in sorted(place.glob("**/*.arrow"))]
    plain = rows.with_format(None).select_columns([column])
    return SavedDataset(f"{folder.resolve().name}/{split}", plain, files, column)


def _saved_rows(folder: Path, split: str) -> tuple[Dataset, Path]:
    """The rows of a split and the directory that they are in."""
    import datasets

    with _sentence(f"dataset directory {str(folder)!r} could not be read"):
        loaded = datasets.load_from_disk(str(folder))
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise UserError(_no_split(str(folder), split, list(map(str, loaded))))
        return loaded[split], folder / split
    if split not in ("train", str(loaded.split)):
        raise UserError(_no_split(str(folder), split, [str(loaded.split or "train")]))
    return loaded, folder


def _data_files(folder: Path) -> list[Path]:
    """Data files of a directory, hidden ones left out."""
    found = [p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in DATA_SUFFIXES]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _builder(name: str, config: str | None) -> DatasetBuilder:
    import datasets

    with _sentence(f"dataset {name!r} could not be opened"):
        return datasets.load_dataset_builder(name, config)


def _check_split(builder: DatasetBuilder, name: str, split: str) -> None:
    splits = [str(s) for s in (builder.config.data_files or builder.info.splits or {})]
    if splits and split not in splits:
        raise UserError(_no_split(name, split, splits))


def _no_split(name: str, split: str, splits: list[str]) -> str:
    return f"dataset {name!r} has no split {split!r}; {nearest(split, splits)}"


@contextmanager
def _sentence(what: str) -> Iterator[None]:
    """Turn a failure of the `datasets` library into a sentence.

    Raises:
        UserError: the block failed.
    """
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (DatasetsError, OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{what} ({reason}): check the name, the configuration and the files") from error
