"""What the tests of the architectures share: random trainees, dense float64 expressions, short trainings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from workbench.dictionaries import Trainee
from workbench.dictionaries.architecture import Architecture, Phase
from workbench.dictionaries.layouts import Layout, Single
from workbench.testbeds.planted import PlantedFeatures, planted_features
from workbench.training.schedule import Schedule
from workbench.training.source import Batch
from workbench.training.step import Trainer

RELATIVE = 1e-5  # of a gradient's norm, float32 against float64
UPSTREAM = -1.7
PHASE = Phase(50, 100)
D_IN = 12


def raw_rows(n_rows: int = 64) -> Tensor:
    """Random rows with an offset."""
    return torch.randn(n_rows, D_IN) * 3 + 2


def random_trainee(
    architecture: Architecture,
    *,
    silent: int = 0,
    normalise: str = "spread",
    layout: Layout | None = None,
    y: Tensor | None = None,
) -> Trainee:
    """A trainee with random parameters (not tied, nothing 0); its first `silent` latents count as dead."""
    sample, generator = raw_rows(500), torch.Generator().manual_seed(1)
    layout = layout or Single(d_in=D_IN, d_out=D_IN)
    trainee = Trainee.initialise(architecture, layout, sample, y, normalise=normalise, generator=generator)
    with torch.no_grad():
        for tensor in trainee.parameters.values():
            tensor.add_(0.3 * torch.randn_like(tensor))
        trainee.constrain()
        trainee.parameters["b_enc"][:silent] -= 4
    trainee.tokens_since_fired[:silent] = 10**6
    return trainee


def leaves_of(trainee: Trainee) -> dict[str, Tensor]:
    """Its parameters as float64 leaves."""
    return {name: t.detach().double().requires_grad_() for name, t in trainee.parameters.items()}


def pre_activations(p: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """(x - b_dec) W_enc + b_enc."""
    return (x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]


def dense_aux(
    options: Architecture, p: Mapping[str, Tensor], pre: Tensor, error: Tensor, dead: Tensor
) -> Tensor:
    """The weighted auxiliary loss, dense."""
    if not dead.any():
        return error.new_zeros(())
    target, allowed = error.detach(), pre.masked_fill(~dead, -torch.inf)
    chosen = torch.zeros_like(pre).scatter(1, allowed.topk(min(options.k_aux, int(dead.sum()))).indices, 1)
    missed = ((pre.relu() * chosen) @ p["W_dec"] - target).square().mean()
    return options.aux_coefficient * missed / target.var(dim=0, unbiased=False).mean()


def relative_errors(
    trainee: Trainee, loss: Tensor, exact: Tensor, leaves: Mapping[str, Tensor]
) -> dict[str, float]:
    """Per parameter the error of its gradient under a random upstream gradient, relative to its norm."""
    wanted = torch.autograd.grad(UPSTREAM * exact, list(leaves.values()), retain_graph=True)
    got = torch.autograd.grad(UPSTREAM * loss, list(trainee.parameters.values()), retain_graph=True)
    assert all(float(g.norm()) > 0 for g in wanted), "a gradient of 0 compares nothing"
    pairs = zip(leaves, got, wanted, strict=True)
    return {name: float((ours.double() - g).norm() / g.norm()) for name, ours, g in pairs}


def t64(**other) -> PlantedFeatures:
    """64 features in 32 dimensions, between 1 and 5 of them a row."""
    return planted_features(**{"n_features": 64, "d": 32, "mean_l0": 3.0, "support": "variable", **other})


def fit(
    architecture: Architecture,
    features: PlantedFeatures,
    *,
    n_steps: int = 400,
    batch_size: int = 256,
    lr: float = 1e-2,
    normalise: str = "spread",
    seed: int = 0,
    shuffled: bool = False,
) -> Trainee:
    """A trainee after a short training on planted rows."""
    blocks = [features.block(i, 8192, shuffled=shuffled).x for i in range(2)]
    rows = torch.cat(blocks)
    d, generator = rows.shape[1], torch.Generator().manual_seed(seed)
    trainee = Trainee.initialise(
        architecture, Single(d_in=d, d_out=d), rows, normalise=normalise, generator=generator
    )
    trainer = Trainer(trainee, Schedule(lr, n_steps, 0.05, 0.3))
    for _ in range(n_steps):
        trainer.train_batch(Batch(rows[torch.randint(len(rows), (batch_size,), generator=generator)]))
    return trainee


def recovered_frac(features: PlantedFeatures, W_dec: Tensor) -> float:
    """Share of true features that have a decoder row of their own with a cosine above 0.9."""
    cosine, row = (features.directions @ torch.nn.functional.normalize(W_dec, dim=1).T).max(1)
    return len(row[cosine > 0.9].unique()) / len(features.directions)


def quality(trainee: Trainee, features: PlantedFeatures) -> dict[str, float]:
    """Of the exported dictionary on other rows: L0, its correlation with the true one, FVU, gamma and recovery.

    gamma is |x_hat|^2 / <x_hat, x>: below 1 where reconstructions are shrunk.
    """
    block = features.block(99, 4096)
    x, true_l0 = block.x, (block.values > 0).sum(1).float()
    dictionary = trainee.export(hook_name="hook_embed")
    indices, values = dictionary.encode(x)
    x_hat, l0 = dictionary.decode(indices, values), (values > 0).sum(1).float()
    return {
        "l0": float(l0.mean()),
        "l0_correlation": float(torch.corrcoef(torch.stack([l0, true_l0]))[0, 1]),
        "fvu": float((x - x_hat).square().sum() / (x - x.mean(0)).square().sum()),
        "gamma": float(x_hat.square().sum() / (x_hat * x).sum()),
        "recovered": recovered_frac(features, dictionary.W_dec),
    }


def fitted(architecture: Architecture, features: PlantedFeatures, **options) -> dict[str, float]:
    """`quality` after `fit`; a function of its own so that a child process can be given it."""
    torch.manual_seed(0)
    return quality(fit(architecture, features, **options), features)
