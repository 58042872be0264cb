"""The Adam step against the textbook equations in float64, on every CPU backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.kernels.adam.problems import exact, problem
from workbench.kernels.adam.equation import AdamStep
from workbench.kernels.adam.op import adam_step, clip_scale, gradient_norm
from workbench.kernels.backend import using

SHAPES = [(7, 5), (1, 1), (300, 513), (3, 4, 6), (40,), ()]


@pytest.fixture(autouse=True, params=["cpu", "reference"])
def each_backend(request: pytest.FixtureRequest) -> Iterator[None]:
    with using(request.param):
        yield


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [None, 0.3])
def test_steps_equal_the_equations(shape, scale, assert_within_rounding):
    given = problem(*shape)
    expected = exact(given, scale=scale or 1.0)
    with using("reference"):
        plain = given.copy().solve(scale=scale)
    ours = given.copy().solve(scale=scale)
    assert_within_rounding(ours.parameter, plain.parameter, expected)


@pytest.mark.parametrize("shape", [(7, 5), (1, 2), (300, 513), (3, 4, 6)], ids=str)
def test_unit_rows_stay_unit_and_their_moments_stay_across_them(shape, assert_within_rounding):
    given = problem(*shape, unit_rows=True)
    expected = exact(given, unit_rows=True)
    with using("reference"):
        plain = given.copy().solve(unit_rows=True)
    ours = given.copy().solve(unit_rows=True)
    assert_within_rounding(ours.parameter, plain.parameter, expected)
    assert torch.allclose(ours.parameter.norm(dim=-1), torch.ones(shape[:-1]), atol=1e-6)
    assert float((expected - exact(given)).abs().max()) > 1e-2, "the constraint made no difference"


def test_the_first_moment_has_no_component_along_the_row():
    given = problem(20, 8, unit_rows=True)
    rows = given.parameter.clone()
    adam_step(
        given.parameter, given.gradients[0], given.exp_avg, given.exp_avg_sq,
        AdamStep(lr=0.1, step=1), unit_rows=True,
    )  # fmt: skip
    assert float((given.exp_avg * rows).sum(1).abs().max()) < 1e-6
    assert float(given.exp_avg.norm(dim=1).min()) > 1e-2


def test_memory_order_of_weights_and_gradients_does_not_matter():
    turned, straight = problem(30, 20, turned=True), problem(30, 20)
    straight.parameter.copy_(turned.parameter)
    straight.gradients = [grad.contiguous() for grad in turned.gradients]
    mixed = turned.copy()
    mixed.gradients = straight.gradients
    solved = [each.solve().parameter for each in (turned.copy(), straight.copy(), mixed)]
    assert not turned.copy().parameter.is_contiguous()
    assert torch.equal(solved[0], solved[1])
    assert torch.equal(solved[0], solved[2])


def test_the_number_of_threads_changes_no_bit(two_threads):
    given = problem(2_000, 300, unit_rows=True)
    alone, norm = given.copy().solve(unit_rows=True), gradient_norm(given.gradients)
    with two_threads():
        together, other = given.copy().solve(unit_rows=True), gradient_norm(given.gradients)
    assert torch.equal(alone.parameter, together.parameter)
    assert torch.equal(alone.exp_avg_sq, together.exp_avg_sq)
    assert torch.equal(norm, other)


def test_a_row_without_gradient_moves_by_its_momentum_and_a_zero_row_stays():
    given = problem(4, 6, unit_rows=True)
    given.parameter[3] = 0
    for grad in given.gradients[1:]:
        grad[:] = 0
    for grad in given.gradients:
        grad[3] = 0
    first = given.parameter.clone()
    ours = given.copy().solve(unit_rows=True)
    assert torch.equal(ours.parameter[3], torch.zeros(6))
    assert float((ours.parameter[:3] - first[:3]).abs().min()) > 1e-3


def test_a_master_takes_the_steps_and_the_parameter_is_its_rounding():
    given = problem(50, 16, unit_rows=True)
    half = given.copy(torch.bfloat16)
    half.master = given.parameter.clone()
    half.solve(unit_rows=True)
    full = given.copy().solve(unit_rows=True)
    assert torch.equal(half.master, full.parameter)
    assert torch.equal(half.parameter, full.parameter.bfloat16())


def test_stochastic_rounding_is_right_on_average_and_the_same_for_the_same_key():
    w, lr = torch.full((200, 500), 1.0), 1e-3  # bfloat16 next to 1 has steps of 1/256 below and 1/128 above
    given = problem(200, 500)
    given.parameter, given.gradients = w.bfloat16(), [torch.ones(200, 500)]
    at, made = AdamStep(lr=lr, step=1), []
    for key in (5, 5, 6):
        one = given.copy(torch.bfloat16)
        adam_step(one.parameter, one.gradients[0], one.exp_avg, one.exp_avg_sq, at, rounding_key=key)
        made.append(one.parameter)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert set(made[0].unique().tolist()) == {1.0, 1 - 1 / 256}
    spread = 1 / 256 / 2 / w.numel() ** 0.5
    assert abs(float(made[0].double().mean()) - (1 - lr)) < 5 * spread
    assert abs(float(made[0].double().mean(1).std()) / (1 / 256 * 0.4366 / 500**0.5) - 1) < 0.25, (
        "not independent"
    )


def test_both_backends_round_alike():
    given = problem(30, 70).copy(torch.bfloat16)
    ours = given.copy(torch.bfloat16)
    ours.gradients[1][0, :2] = torch.tensor([torch.inf, torch.nan])
    with using("reference"):
        plain = ours.copy(torch.bfloat16).solve(key=2**32 - 1)
    ours.solve(key=2**32 - 1)
    assert bool(ours.parameter[0, :2].isnan().all())
    assert float((ours.parameter != plain.parameter).float().mean()) < 0.01  # roundings of the step itself
    assert torch.equal(ours.parameter.isnan(), plain.parameter.isnan())


def test_the_norm_and_the_clip_factor(assert_within_rounding):
    gradients = [torch.randn(300, 500).T, torch.randn(7), torch.randn(3, 4, 5)]
    expected = sum(float(grad.double().square().sum()) for grad in gradients) ** 0.5
    norm = gradient_norm(gradients)
    assert norm.shape == ()
    assert float(norm) == pytest.approx(expected, rel=1e-6)
    assert float(clip_scale(norm, 1.0)) == pytest.approx(1 / expected, rel=1e-6)
    assert float(clip_scale(norm, 1e9)) == 1.0
    assert float(clip_scale(torch.zeros(()), 1.0)) == 1.0


def test_what_does_not_belong_together_is_refused():
    given, at = problem(4, 6), AdamStep(lr=0.1, step=1)
    with pytest.raises(ValueError, match="unit rows need a contiguous parameter"):
        adam_step(
            given.parameter.T, given.gradients[0].T, given.exp_avg.T, given.exp_avg_sq.T, at, unit_rows=True
        )
    with pytest.raises(ValueError, match="another memory order"):
        adam_step(given.parameter, given.gradients[0], torch.zeros(6, 4).T, torch.zeros(6, 4).T, at)
    half = given.copy(torch.bfloat16)
    with pytest.raises(ValueError, match="a rounding key is for weights of lower precision"):
        adam_step(half.parameter, half.gradients[0], half.exp_avg, half.exp_avg_sq, at)
    with pytest.raises(ValueError, match="step 0 is not a step"):
        AdamStep(lr=0.1, step=0)
    with pytest.raises(ValueError, match="gradients is empty"):
        gradient_norm([])
