"""Capture: one forward for all hooks, exact rows, interruption, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models_on_disk import tiny_model_dir
from workbench import capture as room
from workbench.capture import capture, open_store
from workbench.errors import UserError
from workbench.models import load_model

HOOKS = ["blocks.0.hook_resid_post", "blocks.1.attn.hook_z"]


@pytest.fixture
def source(tmp_path: Path) -> dict[str, str]:
    text = tmp_path / "text.py"
    text.write_text("def add(a, b):\n    return a + b\n\n" * 200)
    return {"model": str(tiny_model_dir(tmp_path / "model")), "text": str(text)}


def run_capture(run: Path, source: dict[str, str], **changes):
    options = {"hooks": HOOKS, "n_tokens": 600, "n_ctx": 32, "dtype": "float32", "batch_blocks": 3}
    return capture(run, **(options | source | changes))


def test_rows_are_the_activations_of_their_tokens(tmp_path: Path, source: dict[str, str]) -> None:
    stores = run_capture(tmp_path / "run", source)
    model = load_model(source["model"])
    for hook in HOOKS:
        shard = next(stores[hook].shards())
        _, cache = model.run_with_cache(shard.tokens.long(), names_filter=[hook])
        expected = cache[hook].flatten(2)[shard.block.long(), shard.pos.long()]
        torch.testing.assert_close(shard.activations, expected, atol=1e-5, rtol=0)
        assert (shard.pos >= 1).all()


def test_an_existing_store_is_not_made_again(tmp_path, source, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_capture(tmp_path / "run", source)

    def no_forward(*args: object) -> None:
        raise AssertionError("the forward ran")

    monkeypatch.setattr(room, "capture_forward", no_forward)
    again = run_capture(tmp_path / "run", source)
    assert {k: s.hash for k, s in again.items()} == {k: s.hash for k, s in first.items()}


def test_interrupted_and_continued_equals_uninterrupted(tmp_path, source, monkeypatch) -> None:
    monkeypatch.setattr(room, "BLOCKS_PER_SHARD", 8)
    whole = run_capture(tmp_path / "whole", source)[HOOKS[0]]
    real, calls = room.capture_forward, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(room, "capture_forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_capture(tmp_path / "cut", source)
    with pytest.raises(UserError, match="was interrupted"):
        open_store(tmp_path / "cut", HOOKS[0])
    continued = run_capture(tmp_path / "cut", source)[HOOKS[0]]
    assert [s["sha256"] for s in continued.manifest["shards"]] == [
        s["sha256"] for s in whole.manifest["shards"]
    ]


def test_a_hook_added_later_leaves_the_first_store_alone(tmp_path, source) -> None:
    first = run_capture(tmp_path / "run", source, hooks=HOOKS[:1])[HOOKS[0]]
    time = (first.folder / "shard-00000.safetensors").stat().st_mtime_ns
    assert run_capture(tmp_path / "run", source)[HOOKS[1]].n_rows == first.n_rows
    assert (first.folder / "shard-00000.safetensors").stat().st_mtime_ns == time


def test_a_store_of_another_model_is_refused(tmp_path, source) -> None:
    run_capture(tmp_path / "run", source)
    other = str(tiny_model_dir(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match="made with another model"):
        run_capture(tmp_path / "run", source, model=other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hooks": ["blocks.0.resid_post"]}, "is not a hook point"),
        ({"hooks": ["blocks.0.attn.hook_pattern"]}, "not one vector per token"),
        ({"dtype": "float8"}, "dtype 'float8' is not a storage type"),
        ({"n_ctx": 65}, "n_ctx 65 does not fit"),
        ({"n_tokens": 0}, "n_tokens 0"),
        ({"text": "/nowhere/*.txt"}, "matches no file"),
    ],
)
def test_bad_input_writes_nothing(tmp_path, source, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_capture(tmp_path / "run", source, **change)
    assert not list(tmp_path.glob("run/activations/*/*"))


def test_open_store_names_what_is_there(tmp_path, source) -> None:
    with pytest.raises(UserError, match="capture first"):
        open_store(tmp_path / "run")
    run_capture(tmp_path / "run", source)
    assert open_store(tmp_path / "run", HOOKS[1]).description["hook"] == HOOKS[1]
    with pytest.raises(UserError, match=r"name a hook; captured: blocks\.0\.hook_resid_post, blocks"):
        open_store(tmp_path / "run")
    with pytest.raises(UserError, match="'hook_embed' was not captured"):
        open_store(tmp_path / "run", "hook_embed")
