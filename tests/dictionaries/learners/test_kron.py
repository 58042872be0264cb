"""KronSAE: loss and gradients against dense float64, start, export, files, resumption, control, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.dictionaries.dense import (
    D_IN,
    PHASE,
    RELATIVE,
    leaves_of,
    random_trainee,
    raw_rows,
    relative_errors,
)
from workbench.dictionaries import Trainee, load_dictionary, random_dictionary, save_dictionary
from workbench.dictionaries.base import Site
from workbench.dictionaries.layouts import Crosscoder, CrossLayer, Single
from workbench.dictionaries.learners.kron import Kron, KronDictionary
from workbench.errors import UserError
from workbench.kernels.kron_encode.op import COMBINE
from workbench.kernels.kron_encode.reference import all_pairs
from workbench.training.in_memory import fit_trainer

SIZES = {"d_sae": 48, "k": 5, "base": 2, "extension": 4}


def values_of(p: dict[str, Tensor], x: Tensor, architecture: Kron) -> Tensor:
    """Dense float64 latents of normalised rows, safe to differentiate."""
    u, v = architecture.factors.by_head((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"])
    if architecture.combine == "product":
        return torch.einsum("rhi,rhj->rhij", u, v).flatten(1).relu()
    product = torch.einsum("rhi,rhj->rhij", u.relu(), v.relu()).flatten(1)
    on = product > 0
    root = torch.where(on, product, 1.0).sqrt()
    return torch.where(on, root if architecture.combine == "mand" else product, 0.0)


def dense_loss(trainee: Trainee, raw: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the module's equations with all latents of a row."""
    p, x, options = leaves_of(trainee), trainee.inputs.apply(raw.double()), trainee.architecture
    z, dead = values_of(p, x, options), trainee.dead()

    def keep(allowed: Tensor, k: int) -> Tensor:
        masked = z.masked_fill(~allowed, -1.0)
        return z * torch.zeros_like(z).scatter(1, masked.topk(k).indices, 1) * allowed

    error = x - keep(torch.ones_like(dead), options.k) @ p["W_dec"] - p["b_dec"]
    loss = error.square().mean()
    if bool(dead.any()):
        target = error.detach()
        missed = keep(dead, min(options.k_aux, int(dead.sum()))) @ p["W_dec"] - target
        share = missed.square().mean() / target.var(dim=0, unbiased=False).mean()
        loss = loss + options.aux_coefficient * share
    return loss, p


@pytest.mark.parametrize("combine", COMBINE)
@pytest.mark.parametrize("n_dead", [0, 20])
def test_loss_and_every_gradient_equal_dense_float64(combine, n_dead):
    architecture = Kron(**SIZES, combine=combine, aux_coefficient=0.5, k_aux=4, dead_after_tokens=100)
    trainee, raw = random_trainee(architecture), raw_rows()
    rarest = torch.zeros(48).index_add(0, *(t.flatten() for t in coded(trainee, raw))).argsort()[:n_dead]
    trainee.tokens_since_fired[rarest] = 10**6
    with torch.no_grad():  # those latents stay silent in this batch
        trainee.buffers["tokens_since_fired"][rarest] = 10**6
    losses = trainee.losses(raw, phase=PHASE)
    exact, leaves = dense_loss(trainee, raw)
    assert float(losses.loss.detach()) == pytest.approx(float(exact.detach()), rel=1e-5)
    errors = relative_errors(trainee, losses.loss, exact, leaves)
    assert max(errors.values()) <= 5 * RELATIVE, errors


def coded(trainee: Trainee, raw: Tensor) -> tuple[Tensor, Tensor]:
    """The code of raw rows."""
    code = trainee.architecture.encode(trainee, trainee.inputs.apply(raw), PHASE)
    return code.indices, code.values.detach()


def test_comparison_fails_with_the_root_of_the_appendix(monkeypatch):
    trainee, raw = random_trainee(Kron(**SIZES)), raw_rows()
    exact, _ = dense_loss(trainee, raw)
    from workbench.kernels.kron_encode import op

    monkeypatch.setattr(op, "pair_values", lambda u, v, combine: (u.relu() * v.relu() + 1e-1).sqrt())
    assert float(trainee.losses(raw, phase=PHASE).loss.detach()) != pytest.approx(
        float(exact.detach()), rel=1e-3
    )


@pytest.mark.parametrize("combine", COMBINE)
@pytest.mark.parametrize("normalise", ["none", "spread", "centre", "whiten"])
@pytest.mark.parametrize("transcodes", [False, True])
def test_export_on_raw_activations_equals_the_equations_on_normalised_ones(combine, normalise, transcodes):
    y = raw_rows(500) @ torch.randn(D_IN, D_IN + 3) if transcodes else None
    layout = Single(d_in=D_IN, d_out=D_IN + 3 if transcodes else D_IN, transcodes=transcodes, skip=transcodes)
    architecture = Kron(**SIZES, combine=combine)
    trainee = random_trainee(architecture, normalise=normalise, layout=layout, y=y)
    p = {name: t.detach().double() for name, t in trainee.parameters.items()}
    raw = raw_rows(80)
    x = trainee.inputs.apply(raw.double())
    z = values_of({**p, "b_dec": torch.zeros(D_IN)} if transcodes else p, x, architecture)
    z = z * torch.zeros_like(z).scatter(1, z.topk(5).indices, 1)
    y_hat = z @ p["W_dec"] + p["b_dec"] + (x @ p["W_skip"].T if transcodes else 0)
    frozen = trainee.export(hook_name="hook_embed", hook_name_out="hook_out" if transcodes else None)
    assert isinstance(frozen, KronDictionary)
    wanted = trainee.outputs.invert(y_hat)
    assert torch.allclose(frozen.reconstruct(raw).double(), wanted, atol=2e-4, rtol=1e-4)
    assert int((frozen.encode(raw)[1] > 0).sum()) > 80


@pytest.mark.parametrize("transcodes", [False, True])
def test_files_keep_code_and_hash(transcodes, tmp_path):
    y = raw_rows(500) @ torch.randn(D_IN, D_IN + 3) if transcodes else None
    layout = Single(d_in=D_IN, d_out=D_IN + 3 if transcodes else D_IN, transcodes=transcodes, skip=transcodes)
    trainee = random_trainee(Kron(**SIZES, combine="relu"), layout=layout, y=y)
    frozen = trainee.export(hook_name="a", hook_name_out="b" if transcodes else None, metadata={"model": "m"})
    again, raw = load_dictionary(save_dictionary(frozen, tmp_path)), raw_rows()
    assert (again.hash, again.settings, again.centred) == (frozen.hash, frozen.settings, not transcodes)
    assert again.metadata["model"] == "m"
    for ours, theirs in zip(frozen.encode(raw), again.encode(raw), strict=True):
        assert torch.equal(ours, theirs)
    for other in ("sparsify", "dictionary_learning"):
        with pytest.raises(UserError, match="cannot be written"):
            save_dictionary(frozen, tmp_path / other, format=other)


def test_damaged_files_are_refused(tmp_path):
    frozen = random_trainee(Kron(**SIZES)).export(hook_name="a")
    folder = save_dictionary(frozen, tmp_path)
    text = (folder / "cfg.json").read_text()
    (folder / "cfg.json").write_text(text.replace('"extension": 4', '"extension": 3'))
    with pytest.raises(UserError, match=r"P, Q and W_dec of shapes"):
        load_dictionary(folder)
    (folder / "cfg.json").write_text(text.replace('"combine": "mand"', '"combine": "relu"'))
    with pytest.raises(UserError, match=r"its weights are not those that cfg\.json describes"):
        load_dictionary(folder)


def test_state_round_trip_is_bit_equal_in_the_losses_to_come():
    first = random_trainee(Kron(**SIZES), silent=5)
    again = random_trainee(first.architecture)
    again.load_state({name: t.detach().clone() for name, t in first.state().items()})
    raw = raw_rows()
    losses = [one.losses(raw, phase=PHASE).loss for one in (first, again)]
    assert torch.equal(losses[0].detach(), losses[1].detach())
    for loss in losses:
        loss.backward()
    assert all(torch.equal(t.grad, again.parameters[name].grad) for name, t in first.parameters.items())


def test_a_seed_gives_the_same_bits_and_a_training_lowers_the_error():
    x = raw_rows(600) @ torch.randn(D_IN, D_IN)
    made = [
        fit_trainer(x, architecture="kron", d_sae=48, k=4, n_steps=40, lr=2e-2, batch_size=64)
        for _ in range(2)
    ]
    first, second = (one.export(hook_name="rows") for one in made)
    assert first.hash == second.hash
    fresh = fit_trainer(x, architecture="kron", d_sae=48, k=4, n_steps=1, lr=1e-9, batch_size=64)
    errors = [
        float((one.reconstruct(x) - x).square().sum()) for one in (first, fresh.export(hook_name="rows"))
    ]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("start", [{}, {"decoder_norm": 2.0}, {"tied": False}])
def test_the_start_is_the_published_one(start):
    x = raw_rows(400)
    trainer = fit_trainer(
        x,
        architecture="kron",
        d_sae=64,
        k=4,
        n_steps=1,
        lr=1e-12,
        batch_size=64,
        start=start,
        normalise="none",
    )
    p, f = trainer.trainee.parameters, trainer.trainee.architecture.factors
    rows = p["W_enc"].detach().T
    assert rows.shape == (f.n_rows, D_IN) == (8 * 6, D_IN)
    assert torch.allclose(rows.norm(dim=1), torch.full((f.n_rows,), (D_IN / 128) ** 0.5), atol=1e-4)
    assert torch.equal(p["b_enc"].detach().abs() < 1e-9, torch.ones(f.n_rows, dtype=torch.bool))
    sums = functional.normalize(f.sums(rows), dim=1) * start.get("decoder_norm", 1.0)
    assert torch.allclose(p["W_dec"].detach(), sums, atol=1e-4) == start.get("tied", True)


def test_a_subspace_reaches_both_factors():
    x = torch.randn(500, 3) @ torch.randn(3, D_IN) + 1
    trainer = fit_trainer(
        x, architecture="kron", d_sae=64, k=4, n_steps=1, lr=1e-12, batch_size=64, start={"subspace": 3}
    )
    basis = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:3]
    for rows in (
        trainer.trainee.parameters["W_enc"].detach().T,
        trainer.trainee.parameters["W_dec"].detach(),
    ):
        assert torch.allclose(rows @ basis.T @ basis, rows, atol=1e-4)


def test_the_random_control_keeps_the_rule_and_has_other_directions():
    frozen, raw = random_trainee(Kron(**SIZES)).export(hook_name="a"), raw_rows(300)
    control = random_dictionary(like=frozen, seed=3)
    again = random_dictionary(like=frozen, seed=3)
    assert control.hash == again.hash != random_dictionary(like=frozen, seed=4).hash
    assert control.settings == frozen.settings
    assert torch.equal(control.b_dec, frozen.b_dec)
    tied = functional.normalize(frozen.factors.sums(torch.cat([control.P, control.Q])), dim=1)
    assert torch.allclose(control.W_dec, tied, atol=1e-6)
    assert int((control.encode(raw)[1] > 0).sum()) > 0


def test_what_needs_a_linear_encoder_is_refused():
    frozen = random_trainee(Kron(**SIZES)).export(hook_name="blocks.0.hook_resid_post")
    for name in ("W_enc", "b_enc"):
        with pytest.raises(UserError, match=f"a kron dictionary has no {name}: its latents are products"):
            getattr(frozen, name)
    from workbench.circuits.feature_circuits.sites import reading_rows

    with pytest.raises(UserError, match="has no W_enc"):
        reading_rows(frozen)
    with pytest.raises(AttributeError, match="no attribute 'W_end'"):
        _ = frozen.W_end


def test_a_crosscoder_has_one_code_for_both_sites():
    sites = (Site("a", 5), Site("b", 7))
    layout = Crosscoder(d_in=12, d_out=12, sites=sites)
    trainee, raw = random_trainee(Kron(**SIZES), layout=layout), raw_rows()
    frozen = trainee.export(hook_name="a")
    assert not frozen.centred
    code = coded(trainee, raw)
    assert torch.equal((frozen.encode(raw)[1] > 0).sum(1), (code[1] > 0).sum(1))


def test_memory_of_the_encoder_is_that_of_its_factors():
    options = {"d_sae": 4096, "k": 4, "n_steps": 1, "batch_size": 64}
    trainer = fit_trainer(raw_rows(100), architecture="kron", **options)
    p, f = trainer.trainee.parameters, trainer.trainee.architecture.factors
    assert sum(t.numel() for t in p.values()) == f.n_parameters(D_IN, D_IN)
    assert p["W_enc"].numel() == 0.75 * 4096 * D_IN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_sae": 50}, r"d_sae 50 is not a multiple of base 2 times extension 4, .* choose 48 latents"),
        ({"base": 1}, "base 1 and extension 4 are not both at least 2"),
        ({"combine": "and"}, "combine 'and' is not known; "),
        ({"k": 49}, "k 49 is not between 1 and d_sae 48"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Kron(**{**SIZES, **options})


def test_a_cross_layer_transcoder_is_refused():
    sites = (Site("a", 6), Site("b", 6))
    layout = CrossLayer(d_in=12, d_out=12, sites=sites, sites_out=sites)
    with pytest.raises(
        UserError, match=r"'kron' is trained on layout .* only, not on 'cross_layer_transcoder'"
    ):
        random_trainee(Kron(**SIZES), layout=layout)


def test_the_reference_of_these_tests_is_the_kernel_s():
    trainee, raw = random_trainee(Kron(**SIZES)), raw_rows()
    p, x = leaves_of(trainee), trainee.inputs.apply(raw.double())
    pre = (x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
    ours = values_of(p, x, trainee.architecture)
    assert torch.allclose(ours, all_pairs(pre, trainee.architecture.factors, "mand"))
