"""Capture: exact rows for any hook, one forward for all, identity, appending, refusals."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from tests.capture.conftest import HOOKS, Capture, content
from tests.models_on_disk import tiny_model_dir
from workbench.capture import capture, harvest, open_store
from workbench.capture.options import CaptureOptions
from workbench.errors import UserError
from workbench.models import load_model


def test_options_are_those_of_the_stage() -> None:
    stage = inspect.signature(capture).parameters
    written = {name: p.default for name, p in stage.items() if name not in ("run", "bridge")}
    assert [f.name for f in fields(CaptureOptions)] == list(written)
    assert {f.name: f.default for f in fields(CaptureOptions)} == written


def test_rows_are_the_activations_of_their_tokens(
    tmp_path: Path, run_capture: Capture, model_dir: str
) -> None:
    stores = run_capture(tmp_path / "run")
    model = load_model(model_dir)
    for hook in HOOKS:
        assert stores[hook].n_shards > 2
        for shard in stores[hook].shards():
            _, cache = model.run_with_cache(shard.tokens.long(), names_filter=[hook])
            expected = cache[hook].flatten(2)[shard.block.long(), shard.pos.long()]
            torch.testing.assert_close(shard.activations, expected, atol=1e-5, rtol=0)
            assert (shard.pos >= 1).all()
    assert stores[HOOKS[0]].left_out == {"beginning-of-text tokens": stores[HOOKS[0]].n_sequences}


def test_rows_of_all_hooks_are_aligned_with_their_text(
    tmp_path: Path, run_capture: Capture, model_dir: str, text: str
) -> None:
    stores = run_capture(tmp_path / "run")
    places = [stores[hook].locate([0, 5, 400]) for hook in HOOKS]
    assert places[0].equals(places[1])
    tokenizer = load_model(model_dir).tokenizer
    for shard in stores[HOOKS[0]].shards():
        told = tokenizer.decode(shard.tokens[3, 1:])
        name = stores[HOOKS[0]].documents[int(shard.document[3 * 31 + 10])]
        assert told[20:60] in (Path(text).parent / name).read_text()


@pytest.mark.parametrize(("dtype", "size"), [("bfloat16", 2), ("float16", 2), ("native", 4)])
def test_storage_types(tmp_path: Path, run_capture: Capture, dtype: str, size: int) -> None:
    exact = run_capture(tmp_path / "exact", hooks=HOOKS[:1])[HOOKS[0]].activations(0)
    stored = run_capture(tmp_path / "run", hooks=HOOKS[:1], dtype=dtype)[HOOKS[0]]
    assert stored.dtype.itemsize == size
    assert torch.equal(stored.activations(0), exact.to(stored.dtype))


@pytest.mark.parametrize("precision", ["bfloat16", "mixed"])
def test_precision_of_the_model(tmp_path: Path, run_capture: Capture, precision: str) -> None:
    exact = run_capture(tmp_path / "exact", hooks=HOOKS[:1])[HOOKS[0]].activations(0)
    found = run_capture(tmp_path / "run", hooks=HOOKS[:1], precision=precision)[HOOKS[0]]
    error = (found.activations(0).float() - exact).abs().max() / exact.abs().max()
    assert 1e-5 < error < 0.05


def test_an_existing_store_is_not_made_again(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_capture(tmp_path / "run")

    def no_forward(*args: object, **options: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(harvest.Harvest, "__call__", no_forward)
    again = run_capture(tmp_path / "run")
    assert {k: s.hash for k, s in again.items()} == {k: s.hash for k, s in first.items()}
    assert run_capture(tmp_path / "run", n_tokens=500)[HOOKS[0]].n_rows == first[HOOKS[0]].n_rows


def test_a_hook_added_later_leaves_the_first_store_alone(tmp_path: Path, run_capture: Capture) -> None:
    run_capture(tmp_path / "run", hooks=HOOKS[:1])
    before = content(tmp_path / "run" / "activations" / HOOKS[0])
    run_capture(tmp_path / "run")
    run_capture(tmp_path / "both")
    assert content(tmp_path / "run" / "activations" / HOOKS[0]) == before
    assert content(tmp_path / "run") == content(tmp_path / "both")


def test_a_finished_hook_stays_open_while_another_is_captured(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_capture(tmp_path / "run", hooks=HOOKS[:1])[HOOKS[0]]
    with monkeypatch.context() as patch:
        patch.setattr(harvest.Harvest, "__call__", None)
        with pytest.raises(TypeError):
            run_capture(tmp_path / "run")
    assert open_store(tmp_path / "run", HOOKS[0]).hash == first.hash
    with pytest.raises(UserError, match="was interrupted"):
        open_store(tmp_path / "run", HOOKS[1])
    with monkeypatch.context() as patch:
        patch.setattr(harvest.Harvest, "__call__", None)
        with pytest.raises(TypeError):
            run_capture(tmp_path / "run", n_tokens=2000)
    with pytest.raises(UserError, match="was interrupted"):
        open_store(tmp_path / "run", HOOKS[0])


def test_appending_leaves_the_first_shards_alone(tmp_path: Path, run_capture: Capture) -> None:
    """900 rows today and 2,000 tomorrow are the rows of 2,000 at once; only the division into shards differs."""
    first = run_capture(tmp_path / "run", hooks=HOOKS[:1])[HOOKS[0]]
    files = {f: f.stat().st_mtime_ns for f in first.folder.glob("shard-*")}
    longer = run_capture(tmp_path / "run", hooks=HOOKS[:1], n_tokens=2000)[HOOKS[0]]
    whole = run_capture(tmp_path / "whole", hooks=HOOKS[:1], n_tokens=2000)[HOOKS[0]]
    assert {f: f.stat().st_mtime_ns for f in files} == files
    assert longer.hash != first.hash
    assert longer.n_rows == whole.n_rows >= 2000 > first.n_rows
    every = range(whole.n_rows)
    torch.testing.assert_close(longer.take(every), whole.take(every), atol=1e-6, rtol=0)
    columns = ["pos", "token", "document"]
    assert longer.locate(every)[columns].equals(whole.locate(every)[columns])


def test_a_text_that_ends_is_captured_whole_and_known_to_have_ended(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = run_capture(tmp_path / "run", hooks=HOOKS[:1], n_tokens=10**6)[HOOKS[0]]
    assert store.manifest["exhausted"]
    assert 0 < store.left_out["tokens of a last incomplete block"] < 32
    monkeypatch.setattr(harvest.Harvest, "__call__", None)
    assert run_capture(tmp_path / "run", hooks=HOOKS[:1], n_tokens=10**7)[HOOKS[0]].hash == store.hash


def test_other_things_are_refused_by_field(tmp_path: Path, run_capture: Capture) -> None:
    run_capture(tmp_path / "run", hooks=HOOKS[:1])
    other = str(tiny_model_dir(tmp_path / "other", seed=1))
    for change, message in (
        ({"model": other}, r"made with another model_hash \('.*; model '.*tiny', not '.*other'"),
        ({"seed": 1}, r"made with another text\.seed \(0, not 1\)"),
        ({"n_ctx": 16}, r"made with another .*n_ctx \(32, not 16\)"),
        ({"leave_out": ()}, r"made with another leave_out"),
        ({"positions": "2:"}, r"made with another positions \(None, not '2:'\)"),
        ({"max_norm_multiple": 5.0}, r"made with another max_norm"),
        ({"precision": "mixed"}, r"made with another precision \('float32', not 'mixed'\)"),
        ({"dtype": "float16"}, r"made with another dtype \('float32', not 'float16'\)"),
    ):
        with pytest.raises(UserError, match=message):
            run_capture(tmp_path / "run", hooks=HOOKS[:1], **change)


def test_runs_that_share_stores_capture_once(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_capture(tmp_path / "a", hooks=HOOKS[:1], stores=tmp_path / "stores")[HOOKS[0]]
    with monkeypatch.context() as patch:
        patch.setattr(harvest.Harvest, "__call__", None)
        again = run_capture(tmp_path / "b", hooks=HOOKS[:1], stores=tmp_path / "stores")[HOOKS[0]]
    assert again.hash == first.hash
    assert again.folder.resolve() == first.folder.resolve()
    run_capture(tmp_path / "c", seed=1, hooks=HOOKS[:1], stores=tmp_path / "stores")
    assert len(list((tmp_path / "stores").iterdir())) == 2
    with pytest.raises(UserError, match="has other activations already"):
        run_capture(tmp_path / "a", seed=1, hooks=HOOKS[:1], stores=tmp_path / "stores")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hooks": ["blocks.0.resid_post"]}, "is not a hook point"),
        ({"hooks": []}, "hooks is empty"),
        ({"dtype": "float8"}, "dtype 'float8' is not known; the nearest: float32"),
        ({"precision": "int4"}, "precision 'int4' is not known"),
        ({"n_ctx": 65}, "n_ctx 65 does not fit"),
        ({"n_tokens": 0}, "n_tokens 0 is too small"),
        ({"text": "/nowhere/*.txt"}, "matches no file"),
        ({"part": 3, "shards": 3}, "part 3 is not one of 3"),
        ({"leave_out": ["eos"]}, "leave_out 'eos' is not a kind of token"),
        ({"positions": "first"}, "positions 'first' is not a slice"),
        ({"positions": "32:"}, "positions '32:' keeps no position of sequences of n_ctx 32 tokens"),
        ({"positions": "5:2"}, "positions '5:2' keeps no position"),
        ({"roles": []}, "roles is empty"),
        ({"roles": ["user"]}, "role 'user' is not in the text; this text has none"),
        ({"max_norm_multiple": 0.5}, "max_norm_multiple 0.5 must be larger than 1"),
    ],
)
def test_bad_input_writes_nothing(tmp_path: Path, run_capture: Capture, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_capture(tmp_path / "run", **change)
    assert not list(tmp_path.glob("run/activations/*/*"))


def test_too_little_disk_is_refused_before_the_model_runs(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.capture.space.free_bytes", lambda folder: 1000)
    with pytest.raises(UserError, match=r"needs 230\.4 kB in .* and 1\.0 kB are free"):
        run_capture(tmp_path / "run")


def test_open_store_names_what_is_there(tmp_path: Path, run_capture: Capture) -> None:
    with pytest.raises(UserError, match="capture first"):
        open_store(tmp_path / "run")
    run_capture(tmp_path / "run")
    assert open_store(tmp_path / "run", HOOKS[1]).description["hook"] == HOOKS[1]
    with pytest.raises(UserError, match=r"name a hook; captured: blocks\.0\.hook_resid_post, blocks"):
        open_store(tmp_path / "run")
    with pytest.raises(UserError, match="'hook_embed' was not captured"):
        open_store(tmp_path / "run", "hook_embed")
