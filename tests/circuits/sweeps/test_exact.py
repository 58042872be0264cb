"""Every cell of a batched, truncated sweep equals its own forward pass with a TransformerLens hook."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.circuits.sweeps.conftest import ARCHITECTURES, LENGTH, random_pairs
from tests.circuits.sweeps.reference import Slow
from workbench.anatomy import Anatomy
from workbench.circuits.sweeps import Sweep, Swept, patch_sweep
from workbench.tasks import Batch

TOLERANCE = 1e-5
Opened = Callable[[str], Anatomy]
VECTORS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def assert_close(found: Tensor, wanted: Tensor, scale: Tensor) -> None:
    """Equal to 1e-5 of the size of m, and not all zero."""
    size = max(1.0, float(scale.abs().max()))
    assert float(wanted.abs().max()) > 1e-3 * size
    assert float((found - wanted).abs().max()) <= TOLERANCE * size


def slow(anatomy: Anatomy, batch: Batch, sweep: Sweep) -> Tensor:
    """The same sweep, one forward pass a cell."""
    units = sweep.labels[1] if {"head", "neuron"} & set(sweep.axes) else (0,)
    positions = sweep.labels[-1] if sweep.axes[-1] == "pos" else (slice(None),)
    rows = []
    for layer in sweep.labels[0]:
        cells = Slow(anatomy, batch, sweep.kind, layer, sweep.direction)
        rows += [cells.effect(unit, pos) for unit in units for pos in positions]
    return torch.stack(rows).reshape(sweep.effects.shape)


@pytest.mark.parametrize("kind", VECTORS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layer_by_position(opened: Opened, name: str, kind: str) -> None:
    anatomy, batch = opened(name), random_pairs()
    if kind == "resid_mid" and anatomy.parallel:
        pytest.skip("a parallel block has no stream between its halves")
    direction = "denoising" if kind in ("resid_post", "mlp_out") else "noising"
    sweep = patch_sweep(anatomy, batch, Swept(kind), direction=direction, n_buckets=3)
    assert sweep.axes == ("layer", "pos")
    assert_close(sweep.effects, slow(anatomy, batch, sweep), sweep.clean_logits)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["head", "neuron"])
def test_units_at_all_positions_and_at_each(opened: Opened, name: str, kind: str) -> None:
    anatomy, batch = opened(name), random_pairs()
    units = None if kind == "head" else (0, 5, 31)
    whole = patch_sweep(anatomy, batch, Swept(kind, units=units), direction="denoising")
    single = patch_sweep(anatomy, batch, Swept(kind, layers=(1,), units=units, positions="each"))
    assert whole.axes == ("layer", kind)
    assert single.axes == ("layer", kind, "pos")
    for sweep in (whole, single):
        assert_close(sweep.effects, slow(anatomy, batch, sweep), sweep.clean_logits)


@pytest.mark.parametrize("n_buckets", [1, 2, LENGTH])
@pytest.mark.parametrize("max_tokens", [1, 40, 8192])
def test_chunks_and_buckets_change_nothing(opened: Opened, n_buckets: int, max_tokens: int) -> None:
    anatomy, batch = opened("gemma2"), random_pairs(n=3)
    wanted = patch_sweep(anatomy, batch, Swept("head", positions="each"))
    found = patch_sweep(
        anatomy, batch, Swept("head", positions="each"), n_buckets=n_buckets, max_tokens=max_tokens
    )
    assert_close(found.effects, wanted.effects, wanted.clean_logits)


def test_cells_before_the_first_difference_have_no_effect_at_all(opened: Opened) -> None:
    sweep = patch_sweep(opened("gpt2"), random_pairs(first=4), Swept("resid_pre"))
    assert sweep.effects[:, :4].abs().max() == 0
    assert (sweep.effects[:, 4].abs() > 0).all()


def test_patching_the_whole_stream_moves_the_whole_difference(opened: Opened) -> None:
    """At every layer, all positions of the stream at once are the other prompt."""
    sweep = patch_sweep(opened("neox"), random_pairs(), Swept("resid_post", positions="all"))
    whole = (sweep.clean_logits - sweep.counterfactual_logits).expand_as(sweep.effects)
    assert_close(sweep.effects, whole, sweep.clean_logits)
    assert torch.allclose(sweep.share_frac(), torch.ones(3), atol=1e-4)


def test_a_model_that_looks_ahead_is_run_from_its_first_position() -> None:
    from tests.models_on_disk import native_model
    from workbench.anatomy import open_anatomy

    anatomy, batch = open_anatomy(native_model(attention_dir="bidirectional")), random_pairs(first=4)
    sweep = patch_sweep(anatomy, batch, Swept("resid_pre", layers=(1,)))
    assert (sweep.effects[0, 0].abs() > 0).all()
    assert_close(sweep.effects, slow(anatomy, batch, sweep), sweep.clean_logits)
