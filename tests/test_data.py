"""The index of the shipped data is true: every file is listed with its SHA-256."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workbench.artifacts import sha256_file
from workbench.assets import asset_folder

DATA = asset_folder("data")
LISTED = dict(re.findall(r"^\| `([^`]+)` .*\| `([0-9a-f]{64})` \|$", (DATA / "README.md").read_text(), re.M))


def shipped() -> set[str]:
    files = (str(p.relative_to(DATA)) for p in DATA.rglob("*") if p.is_file())
    return {name for name in files if Path(name).name != "README.md"}


def test_every_file_is_listed() -> None:
    assert LISTED.keys() == shipped()


@pytest.mark.parametrize("name", sorted(LISTED))
def test_hash(name: str) -> None:
    assert sha256_file(DATA / name) == LISTED[name]
