"""A column: one folder of shard files, what they were made from, and the append-only log that names them.

    manifest.json        format, description, hash, and whether the capture has finished
    shards.jsonl         one line per shard, in order: file, rows, bytes, SHA-256, and what the column adds
    shard-00000.safetensors ...

A shard is written beside its name, renamed, and only then logged. A process killed between the two leaves a
file without a line, which the next one overwrites with the same bytes; one killed inside the line leaves a
tail without a newline, which the next one cuts off. Nothing in these files depends on when or how often a
capture was interrupted, so its columns are bit-identical to those of one that was not.

Jobs that share the work each keep a log of their own, `shards.part-2-of-8.jsonl`; `merge` puts the lines in
order into `shards.jsonl`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.artifacts import canonical_json, sha256_file, sha256_json, write_json
from workbench.store.errors import StoreError
from workbench.store.files import Written, damaged, digest_tensors, read_header, write_all, write_tensors
from workbench.store.logs import FORMAT, LOG, MANIFEST, PART_LOGS, Entry, merge_log, read_logs, read_manifest

OWN = ("shard", "file", "bytes", "sha256")


def shard_name(index: int) -> str:
    """`shard-00007.safetensors`."""
    return f"shard-{index:05d}.safetensors"


class Column:
    """The writing side of one column."""

    def __init__(
        self,
        folder: Path,
        description: Mapping[str, Any],
        about: Mapping[str, Any],
        *,
        part: str | None = None,
    ) -> None:
        self.folder, self.part = folder, part
        self.log = folder / (LOG if part is None else f"shards.part-{part}.jsonl")
        wanted, found = new_manifest(description, about), read_manifest(folder)
        if found is not None:
            refuse_other(folder, found, wanted)
        else:
            self._refuse_orphans()
            write_json(folder / MANIFEST, wanted)
        self.manifest = found or wanted
        self._clean()
        self.entries = {entry["shard"]: entry for entry in read_logs(folder)}

    def _refuse_orphans(self) -> None:
        """Shards that no manifest describes may be of any model; another part may just have begun, though."""
        logged = any(path.exists() for path in (self.folder / LOG, *self.folder.glob(PART_LOGS)))
        if logged and not (self.folder / MANIFEST).exists():
            raise StoreError(
                f"the store in {str(self.folder)!r} has shards and no {MANIFEST} that says what they are: "
                "delete the folder and capture again"
            )

    def _clean(self) -> None:
        """Cut off an unfinished line of this process's log and remove files that never got their name."""
        if self.log.exists():
            data = self.log.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                os.truncate(self.log, whole)
        if self.part is None:
            for left in self.folder.glob(".*.tmp"):
                left.unlink(missing_ok=True)

    def write(
        self,
        index: int,
        tensors: Mapping[str, Tensor],
        *,
        rest: Callable[[], object] | None = None,
        **extra: Any,
    ) -> Entry:
        """Write shard `index` (`rest` as in `write_tensors`), then the line that names it."""
        return self._append(self._file(index, tensors, extra, rest))

    def _append(self, entry: Entry) -> Entry:
        """Add a line to the log."""
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            write_all(partial(os.write, descriptor), (canonical_json(entry) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.entries[entry["shard"]] = entry
        return entry

    def _file(
        self,
        index: int,
        tensors: Mapping[str, Tensor],
        extra: Mapping[str, Any],
        rest: Callable[[], object] | None = None,
    ) -> Entry:
        written: Written = write_tensors(self.folder / shard_name(index), tensors, rest=rest)
        place = {"shard": index, "file": shard_name(index), "bytes": written.bytes, "sha256": written.sha256}
        return place | dict(extra)

    def rewrite(self, index: int, tensors: Mapping[str, Tensor], *, accept: bool = False) -> Entry:
        """Make the file of a logged shard again.

        Args:
            index: The shard.
            tensors: Its content.
            accept: Log the new file also where its bytes are not those of the old one.

        Raises:
            StoreError: its bytes are others and were not accepted; the file is left as it was.
        """
        known, digest = self.entries[index], digest_tensors(tensors)
        if digest != known["sha256"] and not accept:
            raise StoreError(
                f"shard {str(self.folder / known['file'])!r} comes out with other bytes now (SHA-256 {digest[:12]}, "
                f"logged {known['sha256'][:12]}): the text, the model, the batches or the machine's arithmetic differ; "
                "--accept keeps the new bytes"
            )
        extra = {key: value for key, value in known.items() if key not in OWN}
        entry = self._file(index, tensors, extra)
        return entry if digest == known["sha256"] else self._append(entry)

    def merge(self) -> None:
        """One log in order, from the logs of all parts and from lines that were written out of order."""
        merge_log(self.folder)

    def mark(self, *, complete: bool, exhausted: bool) -> None:
        """Say whether the capture has finished and whether it came to the end of its source."""
        said = {"complete": complete, "exhausted": exhausted}
        if self.manifest | said != self.manifest:
            self.manifest |= said
            write_json(self.folder / MANIFEST, self.manifest)


def new_manifest(description: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a column that has no shard yet.

    Args:
        description: What the column is a function of; its SHA-256 is the column's identity.
        about: Where those things were found (paths, names): told to people, not part of the identity.
    """
    described = json.loads(canonical_json(dict(description)))
    return {
        "format": FORMAT,
        "hash": sha256_json(described),
        "complete": False,
        "exhausted": False,
        "description": described,
        "about": json.loads(canonical_json(dict(about))),
    }


def refuse_other(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with a store of another model, text, hook or option.

    Raises:
        StoreError: names the first field that differs, with both values, and what else is known to differ.
    """
    fields = _differences(found["description"], wanted["description"])
    if fields:
        told = [f"{key} ({_short(old)}, not {_short(new)})" for key, old, new in fields[:1]]
        told += [
            f"{key} {_short(old)}, not {_short(new)}"
            for key, old, new in _differences(found["about"], wanted["about"])
        ]
        raise StoreError(
            f"the store in {str(folder)!r} was made with another {'; '.join(told)}: use another run folder or "
            "delete it"
        )


def _short(value: Any) -> str:
    """A value for a sentence; of a digest the first figures."""
    text = repr(value)
    return text[:13] + "'" if isinstance(value, str) and len(value) == 64 else text


def _differences(found: Any, wanted: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, found, wanted) of the fields in which two descriptions differ."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        names = ((name, f"{key}.{name}" if key else name) for name in {**found, **wanted})
        return [d for name, path in names for d in _differences(found.get(name), wanted.get(name), path)]
    return [] if found == wanted else [(key, found, wanted)]


def check_size(path: Path, entry: Entry) -> None:
    """The fast check: the file is there with its size and a header that fits.

    Raises:
        StoreError: it is not.
    """
    read_header(path)
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise damaged(path, f"it has {size:,} bytes, {entry['bytes']:,} were written")


def check_whole(path: Path, entry: Entry) -> None:
    """The full check: the fast one, and the SHA-256 of every byte.

    Raises:
        StoreError: the file is not the one that was written.
    """
    check_size(path, entry)
    if sha256_file(path) != entry["sha256"]:
        raise damaged(path, "its SHA-256 is another than when it was written")
