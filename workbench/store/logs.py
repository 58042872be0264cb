"""The files that say what a column holds: `manifest.json` and `shards.jsonl`, read with care and joined.

Both are small and everything depends on them, so what is not what was written (a line that is not JSON, a
shard without a checksum, a description that does not give its hash) is refused rather than used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workbench.artifacts import atomic_file, canonical_json, read_json, sha256_json
from workbench.store.errors import StoreError

MANIFEST = "manifest.json"
LOG = "shards.jsonl"
PART_LOGS = "shards.part-*.jsonl"
FORMAT = 2
KINDS = {"shard": int, "file": str, "bytes": int, "sha256": str, "rows": int}
"""What every line of a log tells, and its type."""

Entry = dict[str, Any]


def read_log(path: Path) -> list[Entry]:
    """The shards of a log in order; of two lines for one shard the later counts, an unfinished line does not.

    Raises:
        StoreError: a line is not JSON, or tells no shard.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        entries = {entry["shard"]: entry for entry in map(_entry, lines)}
    except ValueError as error:
        raise StoreError(
            f"{str(path)!r} is damaged (a line is not what was written): delete the folder and capture again"
        ) from error
    return [entries[index] for index in sorted(entries)]


def _entry(line: bytes) -> Entry:
    """A line of a log; ValueError where it is none."""
    entry = json.loads(line)
    if not isinstance(entry, dict) or any(type(entry.get(key)) is not kind for key, kind in KINDS.items()):
        raise ValueError("a shard without number, file, size, checksum or rows")
    return entry


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a column, finished or not; None where there is none.

    Raises:
        StoreError: it is damaged, or was written by another version.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        found = read_json(path)
    except ValueError as error:
        raise damaged_manifest(path) from error
    if isinstance(found, dict) and found.get("format") != FORMAT:
        raise StoreError(
            f"store {str(folder)!r} has format {found.get('format')!r}, this version reads {FORMAT}: capture again"
        )
    if not _whole(found):
        raise damaged_manifest(path)
    return found


def damaged_manifest(path: Path) -> StoreError:
    """The refusal of a manifest."""
    return StoreError(
        f"{str(path)!r} is damaged (it is not what was written): delete the folder and capture again"
    )


def _whole(found: Any) -> bool:
    """Whether a manifest has all its parts and the hash of its description."""
    if not isinstance(found, dict) or not {"complete", "exhausted", "about"} <= set(found):
        return False
    return isinstance(found["about"], dict) and found.get("hash") == sha256_json(found.get("description"))


def read_logs(folder: Path) -> list[Entry]:
    """The shards of a column in order, those of parts that are not merged included."""
    entries: dict[int, Entry] = {}
    for log in (folder / LOG, *sorted(folder.glob(PART_LOGS))):
        entries |= {entry["shard"]: entry for entry in read_log(log)}
    return [entries[index] for index in sorted(entries)]


def merge_log(folder: Path) -> list[Entry]:
    """Make one log in order of all the lines of a column; returns its shards."""
    entries, log = read_logs(folder), folder / LOG
    text = "".join(canonical_json(entry) + "\n" for entry in entries)
    if (log.read_text(encoding="utf-8") if log.exists() else "") != text:
        with atomic_file(log) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for path in sorted(folder.glob(PART_LOGS)):
        path.unlink()
    return entries


def refuse_gap(folder: Path, entries: list[Entry]) -> None:
    """Refuse a log in which a shard is missing between others.

    Raises:
        StoreError: names the shard.
    """
    for index, entry in enumerate(entries):
        if entry["shard"] != index:
            raise StoreError(
                f"shard {index} of {str(folder)!r} was never captured, later ones were: the same capture command "
                "without a part fills the gap"
            )
