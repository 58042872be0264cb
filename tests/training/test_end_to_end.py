"""The end-to-end objective: against dense expressions, and on a read-out with a null space."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.dictionaries.layouts.fitting import fitted
from workbench.dictionaries import Dictionary
from workbench.dictionaries.layouts import Single
from workbench.training.end_to_end import EndToEnd, Readout, end_to_end_parts, kl_nats


def test_parts_and_their_gradients_equal_dense_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    y, y_hat = torch.randn(9, 5, generator=generator), torch.randn(9, 5, generator=generator).requires_grad_()
    A, C = torch.randn(5, 7, generator=generator), torch.randn(5, 4, generator=generator)

    def run(rows: Tensor) -> Readout:
        return Readout(rows @ A, {"a": (rows @ C).tanh(), "b": rows @ C})

    weights = EndToEnd(kl=0.5, local=0.25, downstream=2.5, downstream_hooks=("a", "b"))
    parts = end_to_end_parts(y_hat, y=y, clean=run(y), run=run, weights=weights)
    loss = torch.stack([part.weight * part.value for part in parts.values()]).sum()
    (got,) = torch.autograd.grad(loss, y_hat)

    exact = y_hat.detach().double().requires_grad_()
    p, q = ((rows @ A.double()).softmax(1) for rows in (y.double(), exact))
    kl = (p * (p.log() - q.log())).sum(1).mean()

    def share(wanted: Tensor, found: Tensor) -> Tensor:
        return (wanted - found).square().mean() / wanted.var(0, unbiased=False).mean()

    later = [(rows @ C.double()) for rows in (y.double(), exact)]
    total = 0.5 * kl + 0.25 * share(y.double(), exact)
    total = total + 1.25 * (share(later[0].tanh(), later[1].tanh()) + share(later[0], later[1]))
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    (wanted,) = torch.autograd.grad(total, exact)
    assert float((got - wanted).norm() / wanted.norm()) < 1e-5
    assert set(end_to_end_parts(y_hat, y=y, clean=run(y), run=run, weights=EndToEnd())) == {"kl"}


def test_kl_of_equal_predictions_is_zero_and_not_symmetric() -> None:
    a, b = torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0, 0.0]])
    assert float(kl_nats(a, a + 5)) == pytest.approx(0, abs=1e-6)
    assert float(kl_nats(a, b)) != pytest.approx(float(kl_nats(b, a)), rel=0.1)


class Toy:
    """Three of 64 features a row; the read-out sees a half of the space, in which 32 of them lie."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(32, 32, generator=generator))[0]
        halves = [functional.normalize(torch.randn(32, 16, generator=generator), dim=1) for _ in range(2)]
        self.seen, self.ignored = halves[0] @ basis[:16], halves[1] @ basis[16:]
        chosen = torch.rand(8_000, 64, generator=generator).topk(3).indices
        codes = torch.zeros(8_000, 64).scatter(1, chosen, torch.rand(8_000, 3, generator=generator) + 0.5)
        self.x = codes @ torch.cat([self.seen, self.ignored])
        self.A = basis[:16].T @ torch.randn(16, 20, generator=generator)
        self.onto = basis[:16].T @ basis[:16]

    def run(self, rows: Tensor) -> Readout:
        return Readout(rows @ self.A)

    def trained(self, weights: EndToEnd | None) -> Dictionary:
        goal = None if weights is None else lambda rows: self.objective(rows, weights)
        layout = Single(d_in=32, d_out=32)
        trainer = fitted(layout, "topk", self.x, None, n_steps=150, lr=0.02, d_sae=64, k=2, objective=goal)
        return trainer.export(hook_name="toy")

    def objective(self, rows: Tensor, weights: EndToEnd) -> Any:
        return lambda y_hat: end_to_end_parts(
            y_hat, y=rows, clean=self.run(rows), run=self.run, weights=weights
        )

    def kl(self, dictionary: Dictionary) -> float:
        return float(kl_nats(self.x @ self.A, dictionary.reconstruct(self.x) @ self.A))

    def found(self, features: Tensor, dictionary: Dictionary, onto: Tensor | None = None) -> float:
        rows = dictionary.W_dec if onto is None else dictionary.W_dec @ onto
        return float(((features @ functional.normalize(rows, dim=1).T).amax(1) > 0.9).float().mean())


def test_what_the_model_does_not_read_is_not_learned() -> None:
    toy = Toy()
    local, pure = toy.trained(None), toy.trained(EndToEnd())
    helped = toy.trained(EndToEnd(local=0.05))
    assert toy.kl(pure) < toy.kl(local) / 2
    assert toy.kl(helped) < toy.kl(local) / 2
    assert toy.found(toy.ignored, local) > 0.7
    assert max(toy.found(toy.ignored, pure), toy.found(toy.ignored, helped)) < 0.1
    assert toy.found(toy.seen, pure) < 0.3, "directions are free in the null space of the read-out"
    assert toy.found(toy.seen, pure, toy.onto) > 0.45
    assert toy.found(toy.seen, helped) > 0.65
