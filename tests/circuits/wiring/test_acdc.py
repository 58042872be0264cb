"""ACDC against the sequential algorithm written out: one proposal, one whole run."""

from __future__ import annotations

import pytest
import torch

from tests.circuits.wiring.conftest import OpenWiring, random_pairs
from workbench.circuits.wiring.acdc import acdc
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.executor import EdgeExecutor
from workbench.circuits.wiring.replacement import replacement_run
from workbench.errors import UserError
from workbench.tasks import Batch


def sequential(wiring: Wiring, pairs: Batch, loss: str, tau: float) -> tuple[torch.Tensor, float, int]:
    """The kept edges, the loss, and how often a proposal was run."""
    executor = EdgeExecutor(wiring.anatomy, wiring)
    replacement = replacement_run(wiring.anatomy, pairs.counterfactual)
    clean = wiring.anatomy.last_logits(wiring.anatomy.embed(pairs.clean), 0).log_softmax(-1)

    def value(mask: torch.Tensor) -> float:
        if loss == "logit difference":
            return -float(executor.metrics(pairs, replacement, mask[None]).mean())
        found = executor.logits(pairs, replacement, mask[None])[0].log_softmax(-1)
        return float((clean.exp() * (clean - found)).sum(-1).mean())

    mask = wiring.allowed.clone()
    current, n_runs = value(mask), 0
    for writer, reader in reversed(wiring.pairs.tolist()):
        mask[writer, reader] = False
        without, n_runs = value(mask), n_runs + 1
        if without - current < tau:
            current = without
        else:
            mask[writer, reader] = True
    return mask, current, n_runs


@pytest.mark.parametrize(("loss", "tau"), [("kl", 0.1), ("logit difference", 0.1)])
def test_proposals_side_by_side_find_the_same_circuit(small: Wiring, loss: str, tau: float) -> None:
    pairs = random_pairs(n_pairs=3)
    wanted, value, n_runs = sequential(small, pairs, loss, tau)
    assert 0 < int(wanted.sum()) < small.n_edges
    for at_once in (1, 8):
        found = acdc(small, pairs, tau=tau, loss=loss, at_once=at_once)
        assert torch.equal(found.mask, wanted)
        assert abs(found.loss - value) < 1e-9 * max(1.0, abs(value))
        if at_once == 1:
            assert found.scores.evaluations <= n_runs + 1


def test_shared_keys_and_post_norms(wiring_of: OpenWiring) -> None:
    wiring, pairs = wiring_of("gemma2", num_hidden_layers=2), random_pairs(n_pairs=2, n_pos=4)
    wanted, _, _ = sequential(wiring, pairs, "kl", 0.2)
    assert 0 < int(wanted.sum()) < wiring.n_edges
    assert torch.equal(acdc(wiring, pairs, tau=0.2).mask, wanted)


def test_bad_input_is_refused(small: Wiring, pairs: Batch) -> None:
    with pytest.raises(UserError, match=r"tau 0\.0 is not above 0: give the largest rise in nats"):
        acdc(small, pairs, tau=0.0)
    with pytest.raises(UserError, match=r"loss 'KLD' is not known"):
        acdc(small, pairs, tau=0.1, loss="KLD")
