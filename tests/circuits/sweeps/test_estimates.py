"""Attribution and integrated gradients equal the model's own backward pass; their claims fail where they should."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.circuits.sweeps.conftest import ARCHITECTURES, random_pairs
from tests.circuits.sweeps.reference import HOOKS, slow_gradient, values_of
from workbench.anatomy import Anatomy
from workbench.circuits.quadrature import quadrature
from workbench.circuits.sweeps import Sweep, Swept, attribute_sweep, beside, integrate_sweep, patch_sweep
from workbench.errors import UserError
from workbench.tasks import Batch

Opened = Callable[[str], Anatomy]
LAYER = 1


def slow_terms(
    anatomy: Anatomy,
    batch: Batch,
    kind: str,
    points: list[float | None],
    weights: list[float],
    direction: str,
) -> Tensor:
    """(clean - counterfactual) . weighted mean gradient at one layer, all entries (prompt, pos, ...)."""
    hook = f"blocks.{LAYER}.{HOOKS[kind]}"
    clean, other = (values_of(anatomy, ids, [hook])[hook] for ids in (batch.clean, batch.counterfactual))
    ids = batch.clean if direction == "noising" else batch.counterfactual
    total = torch.zeros_like(clean)
    for point, weight in zip(points, weights, strict=True):
        value = None if point is None else other + point * (clean - other)
        total += weight * slow_gradient(anatomy, batch, ids, hook, value)[0]
    return (clean - other) * total


def by_cell(terms: Tensor, sweep: Sweep) -> Tensor:
    """The terms summed to the sweep's cells of one layer, prompts last."""
    if sweep.kind == "head":
        return (
            terms.unflatten(-1, (sweep.effects.shape[1], -1)).sum((1, -1)).T
            if terms.ndim == 3
            else terms.sum((1, 3)).T
        )
    return terms.sum(1).T if sweep.kind == "neuron" else terms.sum(-1).T


@pytest.mark.parametrize("kind", ["resid_pre", "attn_out", "mlp_out", "head", "neuron"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_attribution_is_the_models_own_gradient(opened: Opened, name: str, kind: str) -> None:
    anatomy, batch = opened(name), random_pairs()
    direction = "denoising" if kind == "head" else "noising"
    found = attribute_sweep(anatomy, batch, Swept(kind, layers=(LAYER,)), direction=direction)
    wanted = by_cell(slow_terms(anatomy, batch, kind, [None], [1.0], direction), found)
    assert float(wanted.abs().max()) > 1e-3
    assert float((found.effects[0] - wanted).abs().max()) <= 2e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("kind", ["resid_pre", "head", "neuron"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_integrated_gradients_are_the_models_own_along_the_path(opened: Opened, name: str, kind: str) -> None:
    anatomy, batch = opened(name), random_pairs()
    rule = quadrature("left", 3)
    direction = "denoising" if kind == "neuron" else "noising"
    swept = Swept(kind, layers=(LAYER,))
    found = integrate_sweep(anatomy, batch, swept, direction=direction, rule=rule.name, n_points=3)
    terms = slow_terms(anatomy, batch, kind, list(rule.points), list(rule.weights), direction)
    wanted = by_cell(terms, found)
    assert float((found.effects[0] - wanted).abs().max()) <= 2e-5 * max(1.0, float(wanted.abs().max()))


def test_the_gap_is_what_is_missing_to_the_exact_effect_and_shrinks_with_points(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs()
    together = patch_sweep(anatomy, batch, Swept("attn_out", positions="all")).effects
    gaps = []
    for n_points in (1, 4, 16):
        found = integrate_sweep(anatomy, batch, Swept("attn_out"), n_points=n_points)
        assert found.gap_logits is not None
        assert torch.allclose(found.effects.sum(1) - together, found.gap_logits, atol=1e-5)
        gaps.append(found.completeness_gap_logits)
        assert found.table(n_resamples=10).attrs["completeness_gap_logits"] == gaps[-1]
    assert gaps[2] < gaps[1] < gaps[0]
    assert gaps[2] < 0.02 * float(together.abs().mean())


def test_the_rule_is_named_and_an_unknown_one_refused(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs()
    found = integrate_sweep(anatomy, batch, Swept("head"), rule="left", n_points=2)
    assert found.protocol == "integrated, noising from the paired prompt, all positions, left, 2 points"
    with pytest.raises(UserError, match="quadrature 'lefft' is not known; the nearest: left"):
        integrate_sweep(anatomy, batch, Swept("head"), rule="lefft")


def test_attribution_is_exact_on_the_last_stream_of_a_model_without_norms() -> None:
    """There m is linear in the stream; with a norm it is not, and the same comparison fails."""
    from tests.models_on_disk import native_model
    from workbench.anatomy import open_anatomy

    errors = []
    for norm in (None, "LN"):
        anatomy, swept = open_anatomy(native_model(normalization_type=norm)), Swept("resid_post", layers=(2,))
        exact = patch_sweep(anatomy, random_pairs(), swept).effects
        guess = attribute_sweep(anatomy, random_pairs(), swept).effects
        errors.append(float((exact - guess).abs().max() / exact.abs().max()))
    assert errors[0] < 1e-5
    assert errors[1] > 1e-3


def test_estimates_stand_beside_the_exact_effects(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs()
    exact, guess = (f(anatomy, batch, Swept("head")) for f in (patch_sweep, attribute_sweep))
    table = beside({"exact": exact, "first-order": guess})
    assert list(table.columns) == ["layer", "head", "exact", "first-order"]
    assert table["exact"].tolist() == exact.mean_logits.flatten().tolist()
    with pytest.raises(UserError, match="sweep 'other' has other cells than 'exact': sweep the same units"):
        beside({"exact": exact, "other": patch_sweep(anatomy, batch, Swept("resid_pre"))})
