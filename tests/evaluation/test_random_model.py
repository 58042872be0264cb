"""The trained control: the run's options repeated on random weights; and evaluation of trained layouts end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.test_documents import source
from workbench.capture import capture
from workbench.dictionaries import load_dictionary, random_dictionary, save_dictionary
from workbench.errors import UserError
from workbench.evaluation import evaluate
from workbench.evaluation.assess import Subject
from workbench.evaluation.random_model import capture_options, training_options
from workbench.models import load_random_model, model_hash
from workbench.training import train

__all__ = ["source"]

READ, WRITE = "blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"
CAPTURE = {
    "layout": "documents", "n_ctx": 24, "dtype": "float32", "shard_tokens": 300, "leave_out": (),
    "positions": "1:", "max_norm_multiple": 3.0,
}  # fmt: skip
OPTIONS = {"d_sae": 48, "k": 4, "batch_size": 100, "n_tokens": 3000, "lr": 5e-3}


@pytest.fixture
def captured(tmp_path: Path, source: tuple[str, str]) -> Path:
    model, text = source
    capture(tmp_path, model=model, text=text, hooks=[READ, WRITE], **CAPTURE)
    return tmp_path


def test_the_control_repeats_text_filters_and_options_on_other_weights(captured: Path) -> None:
    train(captured, hook=READ, architecture="jumprelu", settings={"bandwidth": 0.2}, **OPTIONS)
    subject = Subject.open(captured, captured / "dictionary")
    made = capture_options(subject)
    for name, value in CAPTURE.items():
        if name not in ("shard_tokens", "leave_out"):
            assert made[name] == value, name
    options = training_options(captured, subject)
    assert options["settings"] == {"bandwidth": 0.2}
    assert options["hook"] == [READ]
    assert {name: options[name] for name in OPTIONS} == OPTIONS
    result = evaluate(captured, n_blocks=20, random_model=True, random_model_tokens=1000)
    control = result["random_model"]
    assert control["n_training_tokens"] == 1000
    assert (
        control["model_hash"] == model_hash(load_random_model(made["model"], seed=0)) != result["model_hash"]
    )
    assert control["n_tokens"] == pytest.approx(result["trained"]["n_tokens"], rel=0.2)
    assert control["fvu_high"] < control["random"]["fvu_low"]
    assert control["random"]["fvu"] != result["random"]["fvu"]
    assert control["ce_recovered_frac"] is control["random"]["ce_recovered_frac"] is None
    assert set(control) - {"n_training_tokens", "model_hash", "random"} == set(result["trained"])
    assert not list(captured.glob(".random-model-*"))
    assert "random_model" not in evaluate(captured, n_blocks=20)


@pytest.mark.parametrize(
    ("layout", "hook", "hook_out"),
    [("skip_transcoder", READ, WRITE), ("crosscoder", (READ, WRITE), None)],
)
def test_trained_layouts_are_evaluated_beside_their_control(captured: Path, layout, hook, hook_out) -> None:
    train(captured, layout=layout, hook=hook, hook_out=hook_out, architecture="batch_topk", **OPTIONS)
    result = evaluate(captured, n_blocks=20, random_model=True, random_model_tokens=500)
    trained, control = result["trained"], result["random"]
    assert trained["fvu_high"] < control["fvu_low"]
    assert control["l0"] == pytest.approx(trained["l0"], rel=0.15)
    assert set(trained["sites"]) == (set() if hook_out else {READ, WRITE})
    assert result["random_model"]["n_training_tokens"] == 500
    assert trained["kl_recovered_frac"] is not None


def test_options_that_are_not_kept_are_refused(captured: Path) -> None:
    options = {**OPTIONS, "hook": (READ, WRITE), "layout": "crosscoder", "architecture": "relu"}
    train(captured, layout_options={"norm": "whole"}, **options)
    with pytest.raises(UserError, match="with layout_options or end_to_end, which it does not keep"):
        evaluate(captured, n_blocks=5, random_model=True)


def test_two_models_of_the_same_rows(source, tmp_path_factory) -> None:
    (model, text), runs = source, [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    plain = {**CAPTURE, "max_norm_multiple": None}
    for seed, run in enumerate(runs):
        bridge = load_random_model(model, seed=seed)
        capture(run, model=model, text=text, hooks=[READ], bridge=bridge, **plain)
    options = {**OPTIONS, "hook": READ, "layout": "crosscoder"}
    train(runs[0], other_run=runs[1], **options)
    with pytest.raises(UserError, match=r"is of a run that was not given: give other_run"):
        evaluate(runs[0], n_blocks=5)
    result = evaluate(runs[0], n_blocks=5, other_run=runs[1])
    assert result["text"]["unit"] == "rows"
    assert len(result["trained"]["sites"]) == 2
    assert result["trained"]["ce_nats"] is None
    assert result["trained"]["fvu"] < result["random"]["fvu"]
    with pytest.raises(UserError, match="of two models has no random_model control"):
        evaluate(runs[0], n_blocks=5, other_run=runs[1], random_model=True)


def test_a_dictionary_from_elsewhere_has_no_such_control(captured: Path) -> None:
    trained = train(captured, hook=READ, **OPTIONS)
    save_dictionary(random_dictionary(like=trained), captured / "dictionary")
    assert "identity" not in load_dictionary(captured / "dictionary").metadata
    with pytest.raises(UserError, match="does not say how it was trained: leave random_model out"):
        evaluate(captured, n_blocks=5, random_model=True)
