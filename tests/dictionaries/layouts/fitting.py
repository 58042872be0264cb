"""Short trainings on rows in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import config
from torch import Tensor
from torch.nn import functional

from workbench.dictionaries import Dictionary, Trainee, make_architecture
from workbench.dictionaries.layouts import Layout
from workbench.training.batch import Batch
from workbench.training.schedule import Schedule
from workbench.training.step import Trainer

BATCH = 256


def fitted(
    layout: Layout,
    architecture: str,
    x: Tensor,
    y: Tensor | None,
    *,
    n_steps: int,
    lr: float,
    d_sae: int,
    k: int,
    settings: Mapping[str, Any] | None = None,
    objective: Callable[[Tensor], Any] | None = None,
) -> Trainer:
    """A trainer after `n_steps` batches drawn from the rows.

    Args:
        layout: What is trained.
        architecture: By which rule.
        x: Inputs.
        y: Targets; None where they are the inputs.
        n_steps: Batches.
        lr: Peak learning rate.
        d_sae: Latents.
        k: Latents per row.
        settings: Of the architecture.
        objective: Makes an objective of a batch's inputs.
    """
    # Not a seed that made the data: the first directions would be the true ones.
    generator = torch.Generator().manual_seed(4_321)
    common = {"d_sae": d_sae, "k": k, "dead_after_tokens": 5_000, "aux_coefficient": 1 / 32, "k_aux": None}
    trainee = Trainee.initialise(
        make_architecture(architecture, common, settings or {}), layout, x[:4000], None if y is None else y[:4000],
        generator=generator,
    )  # fmt: skip
    trainer = Trainer(trainee, Schedule(lr, n_steps, 0.05, 0.3))
    for step in range(n_steps):
        at = torch.randint(0, len(x), (BATCH,), generator=generator)
        goal = None if objective is None else objective(x[at])
        with type_checks(step < 2):
            trainer.train_batch(Batch(x[at], None if y is None else y[at], goal), measure=False)
    return trainer


@contextmanager
def type_checks(wanted: bool) -> Iterator[None]:
    """Shapes are checked inside, or not: in long trainings of tiny rows the checks are most of the time."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", not wanted)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1; zeros stay."""
    return functional.normalize(rows, dim=1)


def fve(y: Tensor, y_hat: Tensor) -> float:
    """Fraction of variance explained."""
    return 1 - float((y - y_hat).square().sum() / (y - y.mean(0)).square().sum())


def explained(dictionary: Dictionary, x: Tensor, y: Tensor) -> float:
    """That of a dictionary's reconstruction."""
    return fve(y, dictionary.reconstruct(x))
