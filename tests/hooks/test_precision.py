"""16 bits: autocast over float32 weights, and weights in bfloat16; the tolerance follows the type."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.hooks.conftest import some_ids
from workbench.errors import UserError
from workbench.hooks import open_forward, opening
from workbench.hooks.compare import DiffersError, autocast, compare, tolerance_frac
from workbench.models import load_model

NAMES = ["blocks.0.attn.hook_z", "blocks.1.mlp.hook_post", "blocks.3.hook_resid_post"]


@pytest.fixture(scope="module")
def embedded() -> Any:
    return load_model(device="cpu")


@pytest.mark.parametrize("path", ["plain", "bridge"])
def test_mixed_precision_is_autocast(embedded, path: Any) -> None:
    ids = some_ids(embedded, 2, 32)
    with open_forward(embedded, NAMES, ids=ids, path=path) as exact:
        wanted = exact(ids)
    with open_forward(embedded, NAMES, ids=ids, mixed=torch.bfloat16, path=path) as forward:
        got = forward(ids)
        assert forward.paths == dict.fromkeys(NAMES, path)
    assert got[NAMES[0]].dtype == torch.bfloat16
    for name in NAMES:
        error = float((got[name] - wanted[name]).abs().max() / wanted[name].abs().max())
        assert 1e-4 < error < 8 * torch.finfo(torch.bfloat16).eps
    assert not torch.is_autocast_enabled("cpu")


def test_weights_in_bfloat16() -> None:
    model = load_model(device="cpu", dtype=torch.bfloat16)
    ids = some_ids(model, 2, 32)
    with open_forward(model, NAMES, ids=ids) as forward:
        values = forward(ids)
        assert set(forward.paths.values()) == {"plain"}
    assert {value.dtype for value in values.values()} == {torch.bfloat16}


def test_the_tolerance_follows_the_type(embedded, model_of) -> None:
    assert tolerance_frac(embedded, None) == pytest.approx(1e-5, rel=0.05)
    assert tolerance_frac(embedded, torch.bfloat16) == 8 * torch.finfo(torch.bfloat16).eps
    assert tolerance_frac(embedded, torch.float16) == 8 * torch.finfo(torch.float16).eps


def test_mixed_precision_is_compared_in_full_precision_too(embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of 1% hides in the rounding of bfloat16; the weights' own precision shows it."""
    right = opening.reference

    def wrong(*args: Any) -> Any:
        return {name: value * 1.01 for name, value in right(*args).items()}

    monkeypatch.setattr(opening, "reference", wrong)
    with pytest.raises(UserError, match=r"differs from run_with_cache by 0\.0099 of its largest element"):
        open_forward(embedded, NAMES, ids=some_ids(embedded), mixed=torch.bfloat16)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1.1])
def test_compare_sees(bad: float) -> None:
    wanted = torch.tensor([[1.0, -float("inf"), 0.5]])
    compare("same", wanted.clone(), wanted, 1e-6)
    got = wanted.clone()
    got[0, 0] = bad
    with pytest.raises(DiffersError, match="value differs from run_with_cache by"):
        compare("value", got, wanted, 1e-6)


def test_no_autocast_without_a_type(embedded) -> None:
    with autocast(embedded, None):
        assert not torch.is_autocast_enabled("cpu")
    with autocast(embedded, torch.bfloat16):
        assert torch.is_autocast_enabled("cpu")
