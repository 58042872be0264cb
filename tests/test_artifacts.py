"""Files that are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.artifacts import atomic_file, atomic_folder, canonical_json, read_json, sha256_json, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(ZeroDivisionError), atomic_file(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "f") as made:
        (made / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "f") as made:
        (made / "b").write_text(f"new {1 / 0}")
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with atomic_folder(tmp_path / "f") as made:
            (made / name).write_text(name)
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["b"]


def test_equal_values_have_equal_hashes() -> None:
    assert sha256_json({"b": 1, "a": [2]}) == sha256_json({"a": [2], "b": 1})
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'
