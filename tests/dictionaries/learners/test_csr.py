"""CSR: loss and gradients against dense float64 for every kind of positives, tied weights, export, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.dictionaries.dense import D_IN, PHASE, RELATIVE, UPSTREAM, dense_aux, random_trainee, raw_rows
from tests.dictionaries.test_contrast import reference
from workbench.dictionaries import Trainee, load_dictionary, save_dictionary
from workbench.dictionaries.layouts import Single
from workbench.dictionaries.learners.csr import CSR, POSITIVES
from workbench.errors import UserError
from workbench.training.in_memory import fit

OPTIONS = {"d_sae": 40, "k": 4, "dead_after_tokens": 100, "aux_coefficient": 0.5, "k_aux": 5, "gamma": 0.7}
TRAINED = ("W_dec", "b_enc", "b_dec")
LABELS = torch.arange(64) % 9


def beside_of(positives: str) -> dict[str, Tensor]:
    """What the learner needs of 64 rows."""
    partner = torch.randn(64, D_IN, generator=torch.Generator().manual_seed(5)) * 3 + 2
    return {"same": {}, "label": {"label": LABELS}, "partner": {"partner": partner}}[positives]


def dense_loss(trainee: Trainee, raw: Tensor, *, tied: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the module's equations in float64, and its leaves."""
    p = {name: trainee.parameters[name].detach().double().requires_grad_() for name in TRAINED}
    options, beside = trainee.architecture, beside_of(trainee.architecture.positives)
    encoder = p["W_dec"].T if tied else p["W_dec"].T.detach()

    def coded(x: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        pre = (x - p["b_dec"]) @ encoder + p["b_enc"]
        z = pre.relu() * torch.zeros_like(pre).scatter(1, pre.topk(k).indices, 1)
        return pre, z, x - z @ p["W_dec"] - p["b_dec"]

    x = raw.double() * trainee.inputs.uniform
    pre, z, error = coded(x, options.k)
    loss = error.square().mean() + coded(x, 4 * options.k)[2].square().mean() / 8
    loss = loss + dense_aux(options, p, pre, error, trainee.dead())
    pairs = torch.arange(64).repeat(2)
    if options.positives == "same":
        return loss + options.gamma * reference(torch.cat([z, z]), pairs, 0.2), p
    if options.positives == "label":
        return loss + options.gamma * reference(z, LABELS, 0.2), p
    _, other, missed = coded(beside["partner"].double() * trainee.inputs.uniform, options.k)
    contrast = reference(torch.cat([z, other]), pairs, 0.2)
    return loss + missed.square().mean() + 2 * options.gamma * contrast, p


def gradient_errors(trainee: Trainee, raw: Tensor, **how) -> tuple[float, float, dict[str, float]]:
    """Loss, dense loss and the relative error of each gradient."""
    beside = beside_of(trainee.architecture.positives)
    loss, (exact, leaves) = (
        trainee.losses(raw, phase=PHASE, beside=beside).loss,
        dense_loss(trainee, raw, **how),
    )
    wanted = torch.autograd.grad(UPSTREAM * exact, list(leaves.values()))
    got = torch.autograd.grad(UPSTREAM * loss, [trainee.parameters[name] for name in TRAINED])
    pairs = zip(TRAINED, got, wanted, strict=True)
    found = {name: float((ours.double() - g).norm() / g.norm()) for name, ours, g in pairs}
    return float(loss.detach()), float(exact.detach()), found


@pytest.mark.parametrize("positives", POSITIVES)
@pytest.mark.parametrize("silent", [0, 6])
def test_loss_and_every_gradient_equal_dense_float64(positives, silent):
    trainee = random_trainee(CSR(**OPTIONS, positives=positives), silent=silent)
    loss, exact, errors = gradient_errors(trainee, raw_rows())
    assert loss == pytest.approx(exact, rel=1e-5)
    assert max(errors.values()) <= 5 * RELATIVE, errors


def test_the_comparison_sees_an_encoder_that_is_not_tied():
    loss, exact, errors = gradient_errors(random_trainee(CSR(**OPTIONS)), raw_rows(), tied=False)
    assert loss == pytest.approx(exact, rel=1e-5)
    assert errors["W_dec"] > 100 * RELATIVE


def test_labels_decide_the_loss():
    trainee, raw = random_trainee(CSR(**OPTIONS, positives="label")), raw_rows()
    other = {"label": LABELS.roll(1)}
    losses = [
        trainee.losses(raw, phase=PHASE, beside=b).parts["contrast"] for b in ({"label": LABELS}, other)
    ]
    assert float(losses[0]) != pytest.approx(float(losses[1]), rel=1e-4)


@pytest.mark.parametrize("normalise", ["spread", "centre", "whiten"])
def test_export_on_raw_rows_equals_the_trainees_code(normalise, tmp_path):
    trainee, raw = random_trainee(CSR(**OPTIONS), normalise=normalise), raw_rows(80)
    p = {name: trainee.parameters[name].detach().double() for name in TRAINED}
    x = trainee.inputs.apply(raw.double())
    pre = (x - p["b_dec"]) @ p["W_dec"].T + p["b_enc"]
    z = pre.relu() * torch.zeros_like(pre).scatter(1, pre.topk(4).indices, 1)
    frozen = trainee.export(hook_name="hook_embed")
    wanted = trainee.outputs.invert(z @ p["W_dec"] + p["b_dec"])
    assert torch.allclose(frozen.reconstruct(raw).double(), wanted, atol=1e-4, rtol=1e-4)
    code = frozen.encode(raw)
    assert int((code[1] != 0).sum(1).max()) <= 4
    again = load_dictionary(save_dictionary(frozen, tmp_path))
    assert again.hash == frozen.hash
    assert all(torch.equal(a, b) for a, b in zip(code, again.encode(raw), strict=True))


@pytest.mark.parametrize("positives", POSITIVES)
def test_training_in_memory_is_reproducible(positives):
    rows, labels = raw_rows(256), torch.arange(256) % 5
    beside = {"label": labels, "partner": rows.flip(0)}
    options = {"architecture": "csr", "d_sae": 40, "k": 4, "n_steps": 5, "batch_size": 64}
    made = [fit(rows, **options, beside=beside, settings={"positives": positives}) for _ in range(2)]
    assert made[0].hash == made[1].hash


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positives": "labels"}, "positives 'labels' is not known; the nearest: label"),
        ({"partner": "docs"}, "partner 'docs' has no use with positives 'same'"),
        ({"gamma": -0.1}, "gamma -0.1 is below 0"),
        ({"temperature": 0.0}, "temperature 0.0 is not positive"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        CSR(d_sae=40, k=4, **options)


def test_a_transcoder_is_refused_before_training():
    layout = Single(d_in=D_IN, d_out=D_IN, transcodes=True)
    with pytest.raises(UserError, match="trained on layout 'autoencoder' only, not on"):
        random_trainee(CSR(d_sae=40, k=4), layout=layout, y=raw_rows(500))


def test_what_is_missing_in_memory_is_refused_before_training():
    rows = raw_rows(100)
    options = {"architecture": "csr", "d_sae": 40, "k": 4, "n_steps": 5, "batch_size": 50}
    with pytest.raises(UserError, match="needs 'label' of each row and beside has nothing"):
        fit(rows, **options, settings={"positives": "label"})
    with pytest.raises(UserError, match="beside 'label' has 99 entries for 100 rows"):
        fit(rows, **options, settings={"positives": "label"}, beside={"label": torch.zeros(99)})
