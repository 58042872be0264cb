"""Choosing a path: fall back where the plain value differs, refuse by name what differs everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hooks.conftest import some_ids
from tests.models_on_disk import architecture_dir, architecture_model
from workbench.errors import UserError
from workbench.hooks import open_forward, plain_path, tree
from workbench.hooks.bridge_path import BridgePath
from workbench.models import load_model

POST = "blocks.1.hook_resid_post"


def shifted_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the map: block 1's output is looked for at block 0."""
    right = tree.sites

    def wrong(model: Any) -> dict[int, tree.Site]:
        point = model.hook_dict[POST]
        return {**right(model), id(point): right(model)[id(model.hook_dict["blocks.0.hook_resid_post"])]}

    monkeypatch.setattr(plain_path, "sites", wrong)


def test_a_wrong_map_falls_back_to_the_bridge(model_of, monkeypatch: pytest.MonkeyPatch) -> None:
    shifted_sites(monkeypatch)
    model = model_of("llama")
    with open_forward(model, [POST, "hook_embed"], ids=some_ids(model)) as forward:
        assert forward.paths == {POST: "bridge", "hook_embed": "bridge"}
        assert (
            "'blocks.1.hook_resid_post': the plain path differs from run_with_cache by" in forward.reasons[0]
        )


def test_a_wrong_map_is_refused_when_the_plain_path_is_asked_for(
    model_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted_sites(monkeypatch)
    model = model_of("llama")
    with pytest.raises(
        UserError, match=rf"hook '{POST}': the plain path differs .* by [0-9.]+ of its .*path='auto'"
    ):
        open_forward(model, [POST], ids=some_ids(model), path="plain")


def test_what_differs_on_both_paths_is_refused_by_name(model_of, monkeypatch: pytest.MonkeyPatch) -> None:
    shifted_sites(monkeypatch)
    right = BridgePath.run

    def wrong(self: BridgePath, ids: Any, mask: Any) -> None:
        right(self, ids, mask)
        self.recorder.seen[POST] = self.recorder.seen[POST] * 1.001

    monkeypatch.setattr(BridgePath, "run", wrong)
    model = model_of("llama")
    with pytest.raises(
        UserError, match=rf"hook '{POST}': the bridge path differs from run_with_cache by 0\.001 of"
    ):
        open_forward(model, [POST, "hook_embed"], ids=some_ids(model))


def test_a_perturbed_weight_of_the_plain_model_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = architecture_model(tmp_path, "gpt2")
    right = plain_path.PlainModel

    def perturbed(*args: Any) -> Any:
        plain = right(*args)
        norm = plain.modules["transformer.h.1.ln_2"]
        norm._parameters["weight"] = norm._parameters["weight"] * 1.01
        return plain

    monkeypatch.setattr(plain_path, "PlainModel", perturbed)
    with open_forward(model, ["blocks.0.hook_resid_post"], ids=some_ids(model)) as before:
        assert before.paths["blocks.0.hook_resid_post"] == "plain"
    with open_forward(model, [POST], ids=some_ids(model)) as after:
        assert after.paths[POST] == "bridge"


def test_eager_attention_serves_where_rounding_is_large(tmp_path: Path) -> None:
    """Scores of several hundred make the softmax so steep that the order of sums shows."""
    name = "blocks.2.attn.hook_z"
    model = load_model(architecture_dir(tmp_path, "llama", hidden_size=256, std=0.5), device="cpu")
    with open_forward(model, [name], ids=some_ids(model)) as forward:
        assert "the plain path differs from run_with_cache" in forward.reasons[0]
        assert forward.paths[name] == "plain"


def test_a_hook_that_does_not_fire_is_named(model_of) -> None:
    model = model_of("gpt2")
    for name in ("blocks.0.attn.hook_result", "blocks.0.attn.qkv.hook_out"):
        with pytest.raises(UserError, match=f"hook '{name}' did not fire in this model's forward pass"):
            open_forward(model, [POST, name], ids=some_ids(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"names": ["blocks.1.resid_post"]},
            r"'blocks\.1\.resid_post' is not a hook point .* nearest: blocks",
        ),
        ({"names": []}, r"open_forward needs a hook and a batch: 0 hooks, ids \(2, 20\)"),
        ({"mixed": torch.float64}, r"does not know mixed torch\.float64: give bfloat16"),
    ],
)
def test_bad_options(model_of, options: dict[str, Any], message: str) -> None:
    model = model_of("gpt2")
    with pytest.raises(UserError, match=message):
        open_forward(model, options.pop("names", [POST]), ids=some_ids(model), **options)


def test_native_models_have_no_plain_path(model_of) -> None:
    model = model_of("native")
    with pytest.raises(UserError, match=r"a NativeModel, is not Hugging Face's; .* path='auto'"):
        open_forward(model, [POST], ids=some_ids(model), path="plain")
