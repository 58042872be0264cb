"""top-AFA: the rule against the published formula, gradients against dense float64, raw rows, files, resumption."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.dictionaries.dense import D_IN, PHASE, RELATIVE, dense_aux, random_trainee, raw_rows
from workbench.dictionaries import (
    Trainee,
    load_dictionary,
    make_architecture,
    random_dictionary,
    save_dictionary,
)
from workbench.dictionaries.layouts import Single
from workbench.dictionaries.learners.top_afa import NORMS, TopAFA, TopAFADictionary, nearest_prefix
from workbench.errors import UserError
from workbench.training.schedule import Schedule
from workbench.training.source import Batch
from workbench.training.step import Trainer

OPTIONS = {"d_sae": 40, "k": 4, "k_aux": 5, "aux_coefficient": 0.5, "norm_coefficient": 0.7}
SENTINEL = 1e8


def published_mask(lengths: Tensor, target: Tensor, *, sentinel: bool = True, nearest: bool = True) -> Tensor:
    """The formula of the module on a dense matrix, with the sum of all overwritten."""
    order = lengths.square().argsort(dim=1, descending=True, stable=True)
    sums = lengths.square().gather(1, order).cumsum(1)
    if sentinel:
        sums[:, -1] = SENTINEL
    missed = (sums.sqrt() - target[:, None]).abs()
    if not nearest:
        missed = missed.masked_fill(sums.sqrt() < target[:, None], torch.inf)
    first = torch.arange(lengths.shape[1]) < missed.argmin(1, keepdim=True) + 1
    return torch.zeros_like(first).scatter(1, order, first)


def dense_loss(trainee: Trainee, raw: Tensor, **how: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the module's equations with dense float64 matrices, and the leaves that have a gradient."""
    p = {
        name: t.detach().double().requires_grad_()
        for name, t in trainee.parameters.items()
        if name != "b_enc"
    }
    b_enc, x, options = (
        trainee.parameters["b_enc"].detach().double(),
        raw.double() * trainee.inputs.uniform,
        trainee.architecture,
    )
    pre = (x - p["b_dec"]) @ p["W_enc"] + b_enc
    lengths = {"centred": (x - p["b_dec"]).norm(dim=1), "plain": x.norm(dim=1)}
    norms = p["W_dec"].detach().norm(dim=1)
    mask = published_mask(pre.detach().relu() * norms, lengths[options.select_norm].detach(), **how)
    z = pre.relu() * mask
    error = x - z @ p["W_dec"] - p["b_dec"]
    missed = (z.norm(dim=1) - lengths[options.loss_norm]).square().mean()
    aux = dense_aux(options, p, pre, error, trainee.dead())
    return error.square().mean() + options.norm_coefficient * missed + aux, p


def gradient_errors(
    trainee: Trainee, loss: Tensor, exact: Tensor, leaves: dict[str, Tensor]
) -> dict[str, float]:
    wanted = torch.autograd.grad(exact, list(leaves.values()))
    got = torch.autograd.grad(loss, [trainee.parameters[name] for name in leaves])
    assert all(float(g.norm()) > 0 for g in wanted)
    return {n: float((o.double() - g).norm() / g.norm()) for n, o, g in zip(leaves, got, wanted, strict=True)}


@pytest.mark.parametrize("select_norm", NORMS)
@pytest.mark.parametrize("loss_norm", NORMS)
@pytest.mark.parametrize("silent", [0, 15])
def test_loss_and_every_gradient_equal_dense_float64(select_norm, loss_norm, silent):
    architecture = TopAFA(**OPTIONS, select_norm=select_norm, loss_norm=loss_norm)
    trainee, raw = random_trainee(architecture, silent=silent), raw_rows()
    losses = trainee.losses(raw, phase=PHASE)
    assert bool(trainee.dead().any()) == bool(silent)
    exact, leaves = dense_loss(trainee, raw)
    assert float(losses.loss.detach()) == pytest.approx(float(exact.detach()), rel=1e-5)
    errors = gradient_errors(trainee, losses.loss, exact, leaves)
    assert max(errors.values()) <= RELATIVE, errors


def test_comparison_fails_for_the_first_prefix_that_exceeds():
    trainee, raw = random_trainee(TopAFA(**OPTIONS)), raw_rows()
    broken, leaves = dense_loss(trainee, raw, nearest=False)
    errors = gradient_errors(trainee, trainee.losses(raw, phase=PHASE).loss, broken, leaves)
    assert min(errors.values()) > 100 * RELATIVE


def test_comparison_fails_for_the_other_norms():
    trainee, raw = random_trainee(TopAFA(**OPTIONS)), raw_rows()
    loss = trainee.losses(raw, phase=PHASE).loss
    for option in ("select_norm", "loss_norm"):
        other = "plain" if option == "select_norm" else "centred"
        trainee.architecture = TopAFA(**OPTIONS, **{option: other})
        exact, _ = dense_loss(trainee, raw)
        assert float(loss.detach()) != pytest.approx(float(exact.detach()), rel=1e-3)


def test_the_encoder_bias_gets_no_gradient_even_from_the_auxiliary_loss():
    trainee, raw = random_trainee(TopAFA(**OPTIONS), silent=15), raw_rows()
    losses = trainee.losses(raw, phase=PHASE)
    assert float(losses.parts["aux"]) > 0
    losses.loss.backward()
    assert trainee.parameters["b_enc"].grad is None
    assert float(trainee.parameters["W_enc"].grad[:, :15].norm()) > 0


@pytest.mark.parametrize("seed", range(8))
def test_the_prefix_is_that_of_the_published_formula(seed):
    """Random lengths with zeros, ties, rows without any and rows with all positive, and all kinds of targets."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randn(200, 12, generator=generator).relu()
    lengths[:40] = lengths[:40].round(decimals=0)
    lengths[40:80] += 0.01
    lengths[80] = 0
    target = 4 * torch.rand(200, generator=generator)
    target[::3] = 100.0
    kept = nearest_prefix(lengths, target, d_sae=12)
    wanted = published_mask(lengths.double(), target.double())
    assert torch.equal(lengths * kept, lengths * wanted)
    free = published_mask(lengths.double(), target.double(), sentinel=False)
    assert not torch.equal(lengths * wanted, lengths * free), "the sentinel decides some rows"


def test_three_rows_by_hand():
    acts = torch.tensor([[5.0, 4.0, 3.0], [1.0, 1.0, 1.0], [1.0, 10.0, 2.0]])
    W_dec = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    target = (acts @ W_dec).norm(dim=1)
    assert target.tolist() == pytest.approx([54.41, 15.00, 67.80], abs=0.01)
    kept = nearest_prefix(acts * W_dec.norm(dim=1), target, d_sae=3)
    assert (acts * kept).tolist() == [[0, 4, 3], [0, 1, 1], [0, 10, 2]]
    assert bool(nearest_prefix(acts * W_dec.norm(dim=1), target, d_sae=4).all()), (
        "three of four may be all kept"
    )


def dense(code: tuple[Tensor, Tensor], d_sae: int = 40) -> Tensor:
    return torch.zeros(len(code[0]), d_sae).scatter_add(1, *code)


@pytest.mark.parametrize("normalise", ["spread", "norm", "none", "centre"])
def test_export_on_raw_activations_equals_the_trainee_on_normalised_ones(normalise):
    trainee, raw = random_trainee(TopAFA(**OPTIONS), normalise=normalise), raw_rows(100)
    frozen = trainee.export(hook_name="hook_embed")
    assert isinstance(frozen, TopAFADictionary)
    x = trainee.inputs.apply(raw)
    code = trainee.architecture.encode(trainee, x, PHASE)
    lengths = trainee.outputs.directions(trainee.parameters["W_dec"].detach()).norm(dim=1)
    assert torch.allclose(
        dense(frozen.encode(raw)), dense((code.indices, code.values.detach())) * lengths, atol=1e-4
    )
    y_hat = (
        trainee.layout.decode(trainee.parameters, (code.indices, code.values)) + trainee.parameters["b_dec"]
    )
    assert torch.allclose(frozen.reconstruct(raw), trainee.outputs.invert(y_hat).detach(), atol=1e-4)
    counts = (code.values > 0).sum(1)
    assert len(counts.unique()) > 2
    assert int(counts.max()) < 40


def test_a_row_by_itself_has_the_code_that_it_has_in_a_batch():
    frozen, raw = random_trainee(TopAFA(**OPTIONS)).export(hook_name="hook_embed"), raw_rows()
    alone = torch.cat([dense(frozen.encode(row[None])) for row in raw])
    assert torch.allclose(alone, dense(frozen.encode(raw)), atol=1e-5)


@pytest.mark.parametrize("select_norm", NORMS)
def test_files_keep_code_norm_and_hash(select_norm, tmp_path):
    trainee, raw = random_trainee(TopAFA(**OPTIONS, select_norm=select_norm)), raw_rows()
    frozen = trainee.export(hook_name="hook_embed")
    again = load_dictionary(save_dictionary(frozen, tmp_path))
    assert isinstance(again, TopAFADictionary)
    assert again.select_norm == select_norm
    assert again.hash == frozen.hash
    assert all(torch.equal(a, b) for a, b in zip(frozen.encode(raw), again.encode(raw), strict=True))


def test_going_on_from_a_state_equals_not_having_stopped():
    batches = [raw_rows() for _ in range(8)]

    def trainer() -> Trainer:
        return Trainer(random_trainee(TopAFA(**OPTIONS, dead_after_tokens=100)), Schedule(1e-2, 8, 0.1, 0.2))

    torch.manual_seed(1)
    whole = trainer()
    states = []
    for raw in batches:
        states.append({name: t.detach().clone() for name, t in whole.state().items()})
        whole.train_batch(Batch(raw))
    resumed = trainer()
    resumed.load_state(4, states[4])
    for raw in batches[4:]:
        resumed.train_batch(Batch(raw))
    assert all(torch.equal(t, resumed.state()[name]) for name, t in whole.state().items())
    assert not torch.equal(states[4]["W_enc"], whole.state()["W_enc"])


def test_a_fresh_encoder_bias_stays_zero_through_training():
    sample, generator = raw_rows(500), torch.Generator().manual_seed(0)
    fresh = Trainee.initialise(
        TopAFA(**{**OPTIONS, "dead_after_tokens": 64}),
        Single(d_in=D_IN, d_out=D_IN),
        sample,
        generator=generator,
    )
    trainer = Trainer(fresh, Schedule(1e-2, 6, 0.1, 0.2))
    for _ in range(6):
        trainer.train_batch(Batch(raw_rows()))
    assert float(trainer.export(hook_name="hook_embed").b_enc.abs().max()) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_sae": 1, "k": 1}, "d_sae 1 is not at least 2: top_afa never keeps all latents"),
        ({"norm_coefficient": -1.0}, "norm_coefficient -1.0 is below 0"),
        ({"select_norm": "centered"}, "select_norm 'centered' is not known; the nearest: centred"),
        ({"loss_norm": "none"}, "loss_norm 'none' is not known"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        TopAFA(**{**OPTIONS, **options})


def test_what_it_cannot_be_frozen_for_is_refused_before_training():
    layout = Single(d_in=D_IN, d_out=D_IN, transcodes=True)
    with pytest.raises(
        UserError, match="'top_afa' is trained on layout 'autoencoder' only, not on 'transcoder'"
    ):
        random_trainee(TopAFA(**OPTIONS), layout=layout, y=raw_rows(500))
    with pytest.raises(UserError, match="compares lengths, which this normalisation changes: set normalise"):
        random_trainee(TopAFA(**OPTIONS), normalise="whiten")
    with pytest.raises(UserError, match="with select_norm 'plain' compares lengths"):
        random_trainee(TopAFA(**OPTIONS, select_norm="plain"), normalise="centre")


def test_it_is_trainable_by_name():
    made = make_architecture("top_afa", {"d_sae": 8, "k": 2}, {"norm_coefficient": 0.125})
    assert isinstance(made, TopAFA)
    assert made.norm_coefficient == 0.125


def test_its_random_control_has_its_l0_and_its_rule():
    frozen, raw = random_trainee(TopAFA(**OPTIONS)).export(hook_name="hook_embed"), raw_rows(500)
    control = random_dictionary(like=frozen, seed=3, sample=raw)
    assert isinstance(control, TopAFADictionary)
    l0 = [float((one.encode(raw)[1] > 0).sum()) / 500 for one in (frozen, control)]
    assert l0[1] == pytest.approx(l0[0], rel=0.2)
    assert not torch.allclose(control.W_dec, frozen.W_dec, atol=0.1)
