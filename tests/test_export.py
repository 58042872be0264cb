"""`workbench export`: a run's dictionary in another layout, and what is refused in one sentence."""

from __future__ import annotations

import pytest

from tests.dictionaries.formats.test_round_trips import make
from workbench.cli import main
from workbench.dictionaries import load_dictionary, save_dictionary
from workbench.dictionaries.formats import FORMATS, format_of


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_is_exported(tmp_path, capsys, format):
    made, to = make("topk", unit=True), tmp_path / "out"
    save_dictionary(made, tmp_path / "run" / "dictionary")
    assert main(["export", "--run", str(tmp_path / "run"), "--format", format, "--to", str(to)]) == 0
    assert capsys.readouterr().out == f"{to}\n"
    assert (format_of(to), load_dictionary(to).hash) == (format, made.hash)


@pytest.mark.parametrize(
    ("architecture", "words", "message"),
    [
        ("topk", ["--format", "spars"], "format 'spars' is not known; the nearest: sparsify"),
        ("jumprelu", ["--format", "sparsify"], "of architecture 'jumprelu' cannot be written for sparsify"),
        (
            "topk",
            ["--formt", "sparsify"],
            "option '--formt' is unknown to `workbench export`; the nearest: --format",
        ),
        (None, [], "has no dictionary: make one with `workbench train"),
    ],
)
def test_what_cannot_be_exported(tmp_path, capsys, architecture, words, message):
    (tmp_path / "run").mkdir()
    if architecture:
        save_dictionary(make(architecture), tmp_path / "run" / "dictionary")
    assert main(["export", "--run", str(tmp_path / "run"), "--to", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
