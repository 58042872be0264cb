"""The command line: bad input is one sentence, status 2, no traceback, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models_on_disk import tiny_model_dir
from workbench import cli
from workbench.cli import main, stage_parser
from workbench.runs.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
HOOK = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.py").write_text("def add(a, b):\n    return a + b\n\n" * 200)
    return tmp_path


def capture_words(model: Path, /, **changes: str) -> list[str]:
    given = {
        "model": str(model),
        "hooks": HOOK,
        "text": "text.py",
        "n-tokens": "600",
        "n-ctx": "32",
    } | changes
    return ["capture", "--run", "runs/x", *(word for k, v in given.items() for word in (f"--{k}", v))]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(words: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence that a refused command prints; checks its status and that it left nothing behind."""
    before = files(here)
    status = main(words)
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("workbench: ")
    assert "Traceback" not in captured.out + captured.err
    assert files(here) == before
    return captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["captur"], "subcommand 'captur' does not exist; the nearest: capture"),
        (["capture"], "the following arguments are required: --run; see `workbench capture --help`"),
        (
            ["capture", "--run", "x", "--hook", "y"],
            "option '--hook' is unknown to `workbench capture`; the nearest: --hooks",
        ),
        (["capture", "--run", "x", "--n-tokens", "many"], "n_tokens 'many' is not a whole number"),
        (["train", "--run", "nowhere"], "run 'nowhere' does not exist"),
        (["run"], "the following arguments are required: --params"),
        (["run", "--params", "no.yaml"], "params 'no.yaml' cannot be read"),
        (["demo", "--rum", "x"], "option '--rum' is unknown to `workbench demo`; the nearest: --run"),
        (["doctor", "extra"], "unrecognized arguments: extra"),
    ],
)
def test_usage_errors(words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(words, here, capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hooks": "blocks.0.hook_resid_pots"}, "the nearest: blocks.0.hook_resid_post"),
        ({"model": "./no-such-model"}, "model './no-such-model' is not a directory"),
        ({"n-ctx": "65"}, "n_ctx 65 does not fit: this model's context is 64 tokens"),
        ({"dtype": "float8"}, "dtype 'float8' is not known"),
        ({"text": "no-such-text"}, "text 'no-such-text' matches no file"),
    ],
)
def test_bad_capture(
    changes: dict[str, str], message: str, model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capture_words(model, **changes), here, capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"\x00\xff\xfe\x00binary\x80", "is binary"), (b"caf\xe9", "is not UTF-8")],
)
def test_bad_text(
    content: bytes, message: str, model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bad.txt").write_bytes(content)
    assert message in refused(capture_words(model, text="bad.txt"), here, capsys)


def test_a_model_directory_without_tokenizer(
    model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model, here / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    message = refused(capture_words(here / "bare"), here, capsys)
    assert "has no tokenizer files" in message


def test_a_store_made_by_another_model(model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(capture_words(model)) == 0
    other = tiny_model_dir(here / "other", seed=1)
    capsys.readouterr()
    assert "was made with another model" in refused(capture_words(other), here, capsys)


def test_k_larger_than_d_sae(model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(capture_words(model)) == 0
    capsys.readouterr()
    words = [
        "train",
        "--run",
        "runs/x",
        "--d-sae",
        "16",
        "--k",
        "17",
        "--n-tokens",
        "600",
        "--batch-size",
        "100",
    ]
    message = refused(words, here, capsys)
    assert "k 17" in message
    assert "16" in message


def test_a_full_disk(
    model: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write breaks off in the middle of the file, as it does on a disk that fills."""

    def breaks_off(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("workbench.store.files.os.fsync", breaks_off)
    assert main(capture_words(model)) == 2
    assert "the disk is full: about " in capsys.readouterr().err
    assert {path.name for path in Path("runs").rglob("*") if path.is_file()} == {"manifest.json", ".lock"}


def test_the_store_command(model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Captured in two parts, joined, described, damaged, found, mended."""
    for part in ("1", "0"):
        assert main([*capture_words(model), "--shards", "2", "--part", part, "--shard-tokens", "128"]) == 0
        assert f"part {part} of 2 is done" in capsys.readouterr().out
    assert not Path("runs/x/record.json").exists()
    run = ["--run", "runs/x"]
    assert main(["store", "merge", *run]) == 0
    assert "joined; no gaps" in capsys.readouterr().out
    assert main([*capture_words(model), "--shard-tokens", "128"]) == 0
    capsys.readouterr()
    assert main(["store", "info", *run]) == 0
    told = capsys.readouterr().out
    assert HOOK in told
    assert "left out: " in told
    path = Path(f"runs/x/activations/{HOOK}/shard-00001.safetensors")
    data = bytearray(path.read_bytes())
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert main(["store", "verify", *run, "--quick"]) == 0
    assert main(["store", "verify", *run]) == 1
    assert "shard-00001.safetensors' is damaged" in capsys.readouterr().out
    assert main(["store", "repair", *run]) == 0
    assert f"made again: shard 1 of {HOOK}" in capsys.readouterr().out
    assert path.read_bytes() == data
    assert main(["store", "verify", *run]) == 0
    assert "the nearest: verify" in refused(["store", "verfy", *run], here, capsys)
    assert "option '--quik' is unknown" in refused(["store", "verify", *run, "--quik"], here, capsys)
    assert "has no activations" in refused(["store", "info", "--run", "runs/none"], here, capsys)


def test_an_array_is_imported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", np.ones((5, 3), np.float32))
    words = ["store", "import", "--run", "runs/images", "--array", "x.npy", "--name", "images"]
    assert main(words) == 0
    assert "5 rows of 3 float32 in 1 shards" in capsys.readouterr().out
    Path("labels.txt").write_text("a\n")
    assert "has 1 entries, the array 5 rows" in refused([*words, "--labels", "labels.txt"], here, capsys)


def test_a_stage_by_hand_is_recorded(model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(capture_words(model)) == 0
    assert capsys.readouterr().out.strip().endswith("runs/x/activations")
    record = json.loads(Path("runs/x/record.json").read_text())
    assert record["command"].startswith("workbench capture --run runs/x --model")
    assert record["stages"]["capture"]["parameters"]["n_tokens"] == 600
    assert record["stages"]["capture"]["notebook"] is None
    hashed = {f"activations/{c}/{f}" for c in (HOOK, "rows") for f in ("manifest.json", "shards.jsonl")}
    assert record["hashes"].keys() == hashed
    assert record["seeds"] == {"capture": 0}
    assert {"cpu", "cores", "memory_bytes", "gpu"} <= record["hardware"].keys()
    assert {"python", "torch", "transformer-lens"} <= record["versions"].keys()


def test_an_interruption_is_status_130(here: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(rest: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._COMMANDS, "doctor", interrupted)
    assert main(["doctor"]) == 130
    assert "stopped by the keyboard" in capsys.readouterr().err


@pytest.mark.parametrize("name", STAGES)
def test_help_shows_every_option_with_its_default(name: str) -> None:
    text = " ".join(stage_parser(name).format_help().split())
    for option in STAGES[name].options().values():
        assert f"--{option.name.replace('_', '-')}" in text
        assert option.help, f"{name}: --{option.name} has no help"
        if isinstance(option.default, int | float | str):
            assert f"default: {option.default}" in text


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in [*cli.STAGE_HELP, *cli.OTHER_HELP])
    assert cli.STAGE_HELP.keys() == STAGES.keys()


def test_no_command_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: workbench COMMAND" in capsys.readouterr().out


def test_lab_listens_on_this_machine_only_and_fetches_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, command: called.append(command))
    main(["lab", "--no-browser"])
    command = " ".join(called[0])
    assert "00-explore.ipynb" in command
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--LabApp.news_url=None" in command
    assert command.endswith("--no-browser")


def test_the_module_is_the_command() -> None:
    words = [sys.executable, "-m", "workbench", "captur"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr
        == "workbench: subcommand 'captur' does not exist; the nearest: capture, features, doctor\n"
    )
