"""The doctor says what is missing and how to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import doctor, models
from workbench.cli import main
from workbench.doctor import MISSING, NOTE, OK, Check, render


def test_the_screen_fits_and_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor"])
    screen = capsys.readouterr().out
    for name in (
        "python",
        "packages",
        "device",
        "kernels",
        "model",
        "notebooks",
        "jupyter",
        "chromium",
        "disk",
    ):
        assert f" {name}" in screen
    assert screen.count("\n") <= 24
    assert status == (1 if MISSING in screen else 0)


def test_a_missing_model_is_missing_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "embedded_model_dir", lambda: tmp_path)
    check = doctor._model()
    assert check.state == MISSING
    assert "config.json" in check.found
    assert check.remedy.startswith("python -m workbench.testbeds.embedded_model")


def test_other_versions_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    have = {"torch": "2.13.0+cpu", "pandas": "3.0.0"}
    monkeypatch.setattr(doctor, "direct_requirements", lambda: list(have))
    monkeypatch.setattr(doctor, "_version", have.get)
    monkeypatch.setattr(doctor, "required_versions", lambda: {"torch": "2.13.0", "pandas": "3.1.1"})
    check = doctor._packages()
    assert check.state == NOTE
    assert check.found == "pandas 3.0.0 (tested: 3.1.1)"
    monkeypatch.setattr(doctor, "_version", {"torch": "2.13.0"}.get)
    assert doctor._packages() == Check("packages", MISSING, "not installed: pandas", "make install")


def test_without_chromium_the_browser_tests_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor._chromium().state == NOTE
    assert "apt install chromium chromium-driver" in doctor._chromium().remedy


def test_a_full_disk_is_missing_space(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = doctor.shutil.disk_usage(".")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    assert doctor._disk().state == MISSING
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=2**40))
    assert doctor._disk().state == OK


def test_constraints_cover_every_direct_requirement() -> None:
    pins = doctor.required_versions()
    assert pins["torch"] == "2.13.0"
    assert set(doctor.direct_requirements()) <= set(pins)


def test_a_remedy_stands_under_its_line() -> None:
    lines = render([Check("a", OK, "fine"), Check("long", MISSING, "gone", "get it")]).splitlines()
    assert lines == ["ok      a     fine", "missing long  gone", "              -> get it"]
