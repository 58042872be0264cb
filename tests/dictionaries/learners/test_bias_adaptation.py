"""Bias adaptation: gradients against dense float64, both rules by hand, targets, state, export, files, refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.dictionaries.dense import D_IN, PHASE, RELATIVE, UPSTREAM, random_trainee, raw_rows
from workbench.dictionaries import Trainee, load_dictionary, save_dictionary
from workbench.dictionaries.architecture import Phase
from workbench.dictionaries.layouts import Single
from workbench.dictionaries.learners.bias_adaptation import FORMS, BiasAdaptation, GroupBiasAdaptation
from workbench.errors import UserError
from workbench.training.in_memory import DEFAULTS, Rows, RowsReader, fit_trainer
from workbench.training.options import train_options
from workbench.training.start import new_trainer
from workbench.training.step import Trainer

TRAINED = ("W_dec", "scale", "b_dec")


def trainee_of(form: str, **options) -> Trainee:
    """A random trainee with biases of its own."""
    trainee = random_trainee(BiasAdaptation(d_sae=40, k=4, form=form, every=50, **options))
    trainee.buffers["bias"].copy_(-torch.rand(40) / 2)
    with torch.no_grad():
        trainee.parameters["scale"].add_(0.3)
    return trainee


def dense_code(trainee: Trainee, p: dict[str, Tensor], x: Tensor, *, shifted: bool | None = None) -> Tensor:
    """phi(y) before the scale, dense."""
    bias = trainee.buffers["bias"].double() * trainee.buffers["unit"].double()
    y = (x - p["b_dec"]) @ p["W_dec"].T + bias
    shifted = trainee.architecture.form == "relu" if shifted is None else shifted
    return (y if shifted else y - bias) * (y > 0)


def dense_loss(trainee: Trainee, raw: Tensor, **how) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the module's equations in float64, and its leaves."""
    p = {name: trainee.parameters[name].detach().double().requires_grad_() for name in TRAINED}
    x = raw.double() * trainee.inputs.uniform
    x_hat = (dense_code(trainee, p, x, **how) * p["scale"]) @ p["W_dec"] + p["b_dec"]
    return (x - x_hat).square().mean(), p


def gradient_errors(trainee: Trainee, raw: Tensor, **how) -> dict[str, float]:
    """Relative error of each gradient against the dense one."""
    loss, (exact, leaves) = trainee.losses(raw, phase=PHASE).loss, dense_loss(trainee, raw, **how)
    wanted = torch.autograd.grad(UPSTREAM * exact, list(leaves.values()))
    got = torch.autograd.grad(UPSTREAM * loss, [trainee.parameters[name] for name in TRAINED])
    assert all(float(g.norm()) > 0 for g in wanted)
    return {
        n: float((a.double() - b).norm() / b.norm()) for n, a, b in zip(TRAINED, got, wanted, strict=True)
    }


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_every_gradient_equal_dense_float64(form):
    trainee, raw = trainee_of(form), raw_rows()
    exact, _ = dense_loss(trainee, raw)
    assert float(trainee.losses(raw, phase=PHASE).loss.detach()) == pytest.approx(
        float(exact.detach()), rel=1e-5
    )
    assert max(gradient_errors(trainee, raw).values()) <= 2 * RELATIVE


def test_the_comparison_sees_the_wrong_form():
    trainee, raw = trainee_of("jumprelu"), raw_rows()
    assert min(gradient_errors(trainee, raw, shifted=True).values()) > 100 * RELATIVE


def test_no_gradient_reaches_bias_or_encoder():
    trainee = trainee_of("relu")
    trainee.losses(raw_rows(), phase=PHASE).loss.backward()
    assert trainee.parameters["W_enc"].grad is None
    assert trainee.parameters["b_enc"].grad is None
    assert not trainee.buffers["bias"].requires_grad


@pytest.mark.parametrize("form", FORMS)
def test_counts_are_those_of_the_dense_pre_activations(form):
    trainee = trainee_of(form)
    batches = [raw_rows(), raw_rows()]
    peaks, fired = torch.zeros(40).double(), torch.zeros(40)
    for raw in batches:
        trainee.losses(raw, phase=Phase(0, 100))
        p = {name: tensor.detach().double() for name, tensor in trainee.parameters.items()}
        y = dense_code(trainee, p, raw.double() * trainee.inputs.uniform, shifted=True)
        peaks, fired = torch.maximum(peaks, y.amax(0)), fired + (y > 0).sum(0)
    assert torch.allclose(trainee.buffers["peak"].double(), peaks, rtol=1e-5, atol=1e-5)
    assert torch.equal(trainee.buffers["fired"], fired)
    assert float(trainee.buffers["rows"]) == 128


def adapted(**counted) -> Trainee:
    """A trainee of 4 latents in 2 groups after one adaptation on given counts, in 100 rows."""
    architecture = BiasAdaptation(d_sae=4, k=1, groups=2, highest=0.2, ratio=2.0, every=1)
    trainee = random_trainee(architecture)
    trainee.buffers["unit"].fill_(2.0)
    for name, values in {"rows": 100.0, **counted}.items():
        trainee.buffers[name].copy_(torch.as_tensor(values))
    architecture._adapt(trainee.buffers)
    return trainee


def test_one_that_fires_too_often_falls_and_a_dead_one_rises_by_the_peaks_in_the_buffer():
    trainee = adapted(fired=[21.0, 0.0, 10.0, 0.0], peak=[4.0, 0.0, 6.0, 0.0], bias=[-0.5, -0.5, -0.5, -0.5])
    fell, rose, kept, other = trainee.buffers["bias"].tolist()
    assert fell == pytest.approx(-0.5 - 0.01 * 4 / 2)
    assert rose == pytest.approx(-0.5 + 0.01 * 4 / 2), "its group's mean is of the one latent that fired"
    assert kept == -0.5, "0.1 of the rows is its target, not above it"
    assert other == pytest.approx(-0.5 + 0.01 * 6 / 2)
    assert float(trainee.buffers["rows"]) == 0
    assert trainee.buffers["frequency"].tolist() == pytest.approx([0.21, 0.0, 0.1, 0.0])


def test_a_group_that_is_silent_takes_the_mean_of_all_and_silence_everywhere_one_unit():
    silent = adapted(fired=[50.0, 5.0, 0.0, 0.0], peak=[4.0, 2.0, 0.0, 0.0], bias=[-0.5] * 4)
    assert silent.buffers["bias"][2:].tolist() == pytest.approx([-0.5 + 0.01 * 3 / 2] * 2)
    nothing = adapted(fired=[0.0] * 4, peak=[0.0] * 4, bias=[-0.5] * 4)
    assert nothing.buffers["bias"].tolist() == pytest.approx([-0.49] * 4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=8, max_size=8),
    st.lists(st.floats(0, 1e4, width=32), min_size=8, max_size=8),
    st.integers(1, 8),
    st.sampled_from(["ever", "never", "mixed"]),
)
def test_biases_stay_between_minus_one_and_zero(frequencies, peaks, groups, how):
    architecture = BiasAdaptation(d_sae=8, k=1, groups=groups, down=1.0, up=1.0)
    state = architecture.buffers()
    state["bias"] = -torch.linspace(0, 1, 8)
    fired = {"ever": torch.ones(8), "never": torch.zeros(8), "mixed": torch.tensor(frequencies)}[how]
    for _ in range(3):
        state["fired"].copy_(fired * 100)
        state["peak"].copy_(torch.tensor(peaks) * (fired > 0))
        state["rows"].fill_(100.0)
        architecture._adapt(state)
        assert float(state["bias"].min()) >= -1
        assert float(state["bias"].max()) <= 0


def test_targets_fall_geometrically_and_add_up_to_k():
    targets = GroupBiasAdaptation(d_sae=1000, k=25).target_frac()
    assert float(targets.sum()) == pytest.approx(25, rel=1e-4)
    assert float(targets[0] / targets[-1]) == pytest.approx(100, rel=1e-4)
    steps = targets[::100][:-1] / targets[::100][1:]
    assert torch.allclose(steps, steps[0].expand(9), rtol=1e-4)
    assert BiasAdaptation(d_sae=50, k=5).target_frac().tolist() == pytest.approx([0.1] * 50)
    given = BiasAdaptation(d_sae=6, k=5, groups=3, highest=0.1, ratio=10.0).target_frac()
    assert given[::2].tolist() == pytest.approx([0.1, 10**-1.5, 0.01])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("normalise", ["spread", "centre", "whiten"])
def test_export_on_raw_rows_equals_the_trainees_code(form, normalise, tmp_path):
    trainee = random_trainee(BiasAdaptation(d_sae=40, k=4, form=form), normalise=normalise)
    trainee.buffers["bias"].copy_(-torch.rand(40) / 3)
    trainee.constrain()
    p = {name: tensor.detach().double() for name, tensor in trainee.parameters.items()}
    raw = raw_rows(80)
    x = trainee.inputs.apply(raw.double())
    z = dense_code(trainee, p, x) * p["scale"]
    wanted = trainee.outputs.invert(z @ p["W_dec"] + p["b_dec"])
    frozen = trainee.export(hook_name="hook_embed")
    assert torch.allclose(frozen.reconstruct(raw).double(), wanted, atol=1e-4, rtol=1e-4)
    code = torch.zeros(80, 40).scatter_add(1, *frozen.encode(raw)).double()
    lengths = trainee.outputs.directions(p["W_dec"]).norm(dim=1)
    assert torch.allclose(code, z * lengths, atol=1e-4, rtol=1e-4)
    assert int((code > 0).sum()) > 80
    again = load_dictionary(save_dictionary(frozen, tmp_path))
    assert again.hash == frozen.hash
    assert all(torch.equal(a, b) for a, b in zip(frozen.encode(raw), again.encode(raw), strict=True))


def test_the_centre_stays_where_it_started_unless_it_is_learned():
    rows, moved = raw_rows(600), {}
    for centre in ("fixed", "learned"):
        trainer = fit_trainer(
            rows, architecture="bias_adaptation", d_sae=20, k=3, n_steps=4, batch_size=64,
            settings={"centre": centre, "every": 2},
        )  # fmt: skip
        trainee = trainer.trainee
        moved[centre] = float((trainee.parameters["b_dec"] - trainee.buffers["centre"]).detach().norm())
        assert torch.allclose(trainee.parameters["W_dec"].norm(dim=1), torch.ones(20), atol=1e-6)
    assert moved["fixed"] == 0 < moved["learned"]


def trainer_at(rows: Tensor, n_steps: int) -> Trainer:
    """A fresh trainer of a training of `n_steps` steps."""
    options = {**DEFAULTS, "settings": {"every": 3, "centre": "learned"}}
    chosen = train_options(
        architecture="bias_adaptation", layout="autoencoder", d_sae=20, k=3, batch_size=64, n_tokens=n_steps * 64,
        seed=0, **options,
    )  # fmt: skip
    return new_trainer(source_of(rows), chosen, "cpu")


def source_of(rows: Tensor) -> Rows:
    """Rows in memory as a source."""
    return Rows(rows, None, {}, Single(d_in=D_IN, d_out=D_IN), "rows")


def steps(trainer: Trainer, rows: Tensor, start: int, stop: int) -> None:
    """Steps `start` to `stop` on the batches that they have."""
    reader = RowsReader(source_of(rows), 64, seed=0, start=start)
    for _ in range(start, stop):
        trainer.train_batch(next(reader))


def test_a_resumed_training_ends_in_the_same_bits():
    """Interrupted between two adaptations, so that what has been counted has to come back too."""
    rows = raw_rows(600)
    whole, first, again = (trainer_at(rows, 8) for _ in range(3))
    steps(whole, rows, 0, 8)
    steps(first, rows, 0, 4)
    again.load_state(4, {name: tensor.detach().clone() for name, tensor in first.state().items()})
    steps(again, rows, 4, 8)
    wanted, got = whole.state(), again.state()
    assert all(torch.equal(t.detach(), got[name].detach()) for name, t in wanted.items())
    assert float(whole.trainee.buffers["bias"].abs().sum()) > 0


def test_what_was_counted_matters_to_a_resumed_training():
    rows = raw_rows(600)
    whole, again = trainer_at(rows, 8), trainer_at(rows, 8)
    steps(whole, rows, 0, 4)
    state = {name: tensor.detach().clone() for name, tensor in whole.state().items()}
    again.load_state(4, {**state, "buffer.peak": torch.zeros(20)})
    steps(whole, rows, 4, 8)
    steps(again, rows, 4, 8)
    assert not torch.equal(whole.trainee.buffers["bias"], again.trainee.buffers["bias"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "rel"}, "form 'rel' is not known; the nearest: relu"),
        ({"centre": "fix"}, "centre 'fix' is not known"),
        ({"groups": 41}, "groups 41 is not between 1 and d_sae 40"),
        ({"ratio": 0.5}, "ratio 0.5 is not at least 1"),
        ({"every": 0}, "every 0 is not at least 1 step"),
        ({"first_bias": 0.1}, "first_bias 0.1 is not between -1 and 0"),
        ({"highest": 1.5}, "target frequency 1.5 .* is not between 0 and 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        BiasAdaptation(d_sae=40, k=4, **options)


def test_a_transcoder_is_refused_before_training():
    layout = Single(d_in=D_IN, d_out=D_IN, transcodes=True)
    with pytest.raises(UserError, match="trained on layout 'autoencoder' only, not on"):
        random_trainee(BiasAdaptation(d_sae=40, k=4), layout=layout, y=raw_rows(500))


@pytest.mark.parametrize(("n_steps", "period"), [(100, 1), (2_000, 5), (100_000, 50)])
def test_a_training_of_any_length_has_enough_adaptations(n_steps, period):
    architecture = BiasAdaptation(d_sae=8, k=1)
    assert architecture.period(Phase(0, n_steps)) == period
    assert BiasAdaptation(d_sae=8, k=1, every=7).period(Phase(0, n_steps)) == 7
