"""Schedule, optimiser options, optimiser and moving average."""

from __future__ import annotations

import pytest
import torch

from workbench.errors import UserError
from workbench.training.average import Average
from workbench.training.optimiser import Adam
from workbench.training.optimiser_options import OptimiserOptions, optimiser_options
from workbench.training.schedule import Schedule, decay_frac, default_lr


def test_schedule_rises_stays_and_falls():
    schedule = Schedule(peak=2.0, n_steps=100, warmup_frac=0.1, decay_frac=0.2)
    values = [schedule.at(step) for step in range(100)]
    assert values[0] == pytest.approx(0.2)
    assert values[9] == values[50] == values[80] == 2.0
    assert values[99] == pytest.approx(0.1)
    assert min(values) > 0
    assert Schedule(1.0, 3, 0.0, 0.0).at(2) == 1.0


def test_cosine_falls_by_half_a_period_and_constant_not_at_all():
    cosine = Schedule(2.0, 100, 0.1, decay_frac("cosine", None, 0.1), "cosine")
    values = [cosine.at(step) for step in range(100)]
    assert values[9] == pytest.approx(2.0, rel=1e-3)
    assert values[55] == pytest.approx(1.0)  # half way between warm-up and end
    assert values[9:] == sorted(values[9:], reverse=True)
    assert 0 < values[99] < 0.001
    constant = Schedule(2.0, 100, 0.1, decay_frac("constant", 0.3, 0.1), "constant")
    assert constant.at(4) == pytest.approx(1.0)
    assert constant.at(99) == 2.0
    assert decay_frac("linear", None, 0.05) == 0.3
    assert decay_frac("linear", 0.5, 0.05) == 0.5


def test_default_rate_falls_with_the_square_root_of_the_latents():
    assert default_lr(2**14, 2e-4) == 2e-4
    assert default_lr(2**12, 2e-4) == pytest.approx(4e-4)


def test_options_come_from_a_mapping_as_files_hold_it():
    made = optimiser_options({"betas": [0, 0.99], "clip_norm": 1, "ema": "0.9", "lr_factors": {"b_enc": 2}})
    assert made.betas == (0.0, 0.99)
    assert made.clip_norm == 1.0
    assert made.ema == 0.9
    assert made.lr_factors == {"b_enc": 2.0}
    assert optimiser_options({}) == OptimiserOptions()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clip": 1.0}, "optimiser 'clip' is not an option; the nearest: clip_norm"),
        ({"schedule": "cosin"}, "optimiser schedule 'cosin' is not known; the nearest: cosine"),
        ({"precision": "bf16"}, "optimiser precision 'bf16' is not known"),
        ({"clip_norm": 0}, r"optimiser clip_norm 0\.0 is not positive: choose another value"),
        ({"ema": 1}, r"optimiser ema 1\.0 is not between 0 and 1, both exclusive"),
        ({"betas": [0.9, 1]}, r"optimiser betas \(0\.9, 1\.0\) is not from 0 to below 1"),
        ({"betas": 0.9}, "optimiser .* has a value of another kind .*: give numbers, two of them for betas"),
        (
            {"warmup_frac": 0.8, "decay_frac": 0.3},
            r"optimiser warmup_frac 0\.8 and decay_frac 0\.3 are more than all",
        ),
        ({"warmup_frac": -0.1}, r"optimiser warmup_frac -0\.1 is not between 0 and 1"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(given, message):
    with pytest.raises(UserError, match=message) as caught:
        optimiser_options(given)
    assert "\n" not in str(caught.value)


def gradients(leaves, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(leaf.shape, generator=generator) for name, leaf in leaves.items()}


def weights():
    return {"W": torch.nn.functional.normalize(torch.randn(12, 8), dim=1), "b": torch.randn(12)}


def test_clipping_shortens_all_gradients_together():
    start = weights()
    copies = [{name: value.clone() for name, value in start.items()} for _ in range(2)]
    clipped, whole = (
        Adam(copies[0], OptimiserOptions(clip_norm=0.5, epsilon=0.1)), Adam(copies[1], OptimiserOptions(epsilon=0.1)),
    )  # fmt: skip
    given = gradients(start)
    norm = clipped.step(0.1, given, 1)
    assert norm is not None
    assert float(norm) == pytest.approx(sum(float(g.square().sum()) for g in given.values()) ** 0.5, rel=1e-6)
    assert whole.step(0.1, {name: g * 0.5 / float(norm) for name, g in given.items()}, 1) is None
    for name, value in copies[0].items():
        assert torch.allclose(value, copies[1][name], atol=1e-6)
        assert not torch.equal(value, start[name])


def test_factors_scale_the_rate_of_one_parameter_and_unknown_ones_are_refused():
    start = weights()
    moved = {}
    for factor in (1.0, 3.0):
        copy = {name: value.clone() for name, value in start.items()}
        Adam(copy, OptimiserOptions(lr_factors={"b": factor})).step(0.01, gradients(start), 1)
        moved[factor] = {name: value - start[name] for name, value in copy.items()}
    assert torch.allclose(moved[3.0]["b"], 3 * moved[1.0]["b"], rtol=1e-4)
    assert torch.equal(moved[3.0]["W"], moved[1.0]["W"])
    with pytest.raises(UserError, match="optimiser lr_factors 'c' is not a parameter; known: W, b"):
        Adam(start, OptimiserOptions(lr_factors={"c": 1.0}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "bfloat16-stochastic"])
def test_the_state_continues_bit_for_bit(precision):
    options, first = OptimiserOptions(precision=precision), weights()
    adam = Adam(first, options, unit_rows=["W"], seed=3)
    for number in (1, 2):
        adam.step(0.01, gradients(first, number), number)
    other = Adam(weights(), options, unit_rows=["W"], seed=3)
    for name, value in adam.parameters.items():
        with torch.no_grad():
            other.parameters[name].copy_(value)
    other.load_state({name: tensor.clone() for name, tensor in adam.state().items()})
    for each in (adam, other):
        each.step(0.01, gradients(first, 3), 3)
    assert adam.parameters["W"].dtype == (torch.float32 if precision == "float32" else torch.bfloat16)
    assert adam.parameters["b"].dtype == torch.float32
    assert ("master.W" in adam.state()) == (precision == "bfloat16")
    for name, value in adam.parameters.items():
        assert torch.equal(value, other.parameters[name])
    for name, value in adam.state().items():
        assert torch.equal(value, other.state()[name])


def test_the_average_is_corrected_for_its_start():
    average, values = Average({"w": torch.zeros(3)}, 0.9), [torch.randn(3) for _ in range(4)]
    for value in values:
        average.add({"w": value})
    expected = sum(0.9 ** (3 - i) * value.double() for i, value in enumerate(values)) / sum(
        0.9**i for i in range(4)
    )
    assert torch.allclose(average.after(4)["w"].double(), expected, atol=1e-6)
    one = Average({"w": torch.zeros(3)}, 0.999)
    one.add({"w": values[0]})
    assert torch.allclose(one.after(1)["w"], values[0], rtol=1e-4)
