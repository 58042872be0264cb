"""How a training begins: fresh weights from sample rows, or the newest checkpoint of the same training.

A training that goes on takes its weights from the checkpoint at once, without the sample that fresh ones are
made from, so going on costs little more than reading the checkpoint and filling the reader's window.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.dictionaries import Trainee
from workbench.dictionaries.normalise import Affine
from workbench.training.checkpoint import Checkpoint, load_checkpoint, remove_remains
from workbench.training.checkpointer import GENERATOR
from workbench.training.optimiser import MOMENTS
from workbench.training.options import TrainOptions
from workbench.training.source import Source, sample_rows
from workbench.training.step import Trainer

SAMPLE_ROWS = 32_768


Sample = tuple[Tensor, Tensor | None]


def new_trainer(
    source: Source,
    options: TrainOptions,
    device: str,
    *,
    state: Mapping[str, Tensor] | None = None,
    sample: Sample | None = None,
) -> Trainer:
    """A trainer before its first step; the same bits for the same rows and options.

    Args:
        source: Its rows are what fresh weights are made from.
        options: Of the training.
        device: Where it computes.
        state: Tensors of a whole state, in place of fresh weights; `Trainer.load_state` takes over the rest.
        sample: What `first_rows` gives, where it is at hand.
    """
    trainee = _fresh(source, options, sample) if state is None else _restored(source, options, state)
    return Trainer(trainee.to(device), options.schedule, options.optimiser, seed=options.seed)


def first_rows(source: Source, options: TrainOptions) -> Sample:
    """Input and target rows that normalisation and initial weights are made from."""
    return sample_rows(source, SAMPLE_ROWS, options.batch_size, options.seed)


def _fresh(source: Source, options: TrainOptions, sample: Sample | None) -> Trainee:
    x, y = first_rows(source, options) if sample is None else sample
    start = options.initialisation
    drawn = options.seed if start.seed is None else start.seed
    return Trainee.initialise(
        options.made_architecture, source.layout, x, y,
        start=start, normalise=options.normalise, generator=torch.Generator().manual_seed(drawn),
    )  # fmt: skip


def _restored(source: Source, options: TrainOptions, state: Mapping[str, Tensor]) -> Trainee:
    """The trainee whose state this is: every parameter has moments."""
    names = [name.removeprefix(f"{MOMENTS[0]}.") for name in state if name.startswith(f"{MOMENTS[0]}.")]
    parameters = {name: state[name].to(torch.float32, copy=True) for name in names}
    inputs = Affine.from_state(state, "inputs")
    outputs = Affine.from_state(state, "outputs") if "outputs.mean" in state else inputs
    return Trainee(options.made_architecture, source.layout, parameters, inputs, outputs)


def find_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """The newest whole checkpoint of this training; without one the others, and remains of killed ones, go."""
    remove_remains(folder)
    checkpoint = load_checkpoint(folder, identity)
    if checkpoint is None:
        shutil.rmtree(folder, ignore_errors=True)
    return checkpoint


def take_over(trainer: Trainer, checkpoint: Checkpoint) -> dict[str, Any]:
    """Set trainer and torch's generator to a checkpoint's state; returns the state of its reader."""
    trainer.load_state(checkpoint.step, checkpoint.tensors)
    torch.set_rng_state(checkpoint.tensors[GENERATOR])
    return checkpoint.reader
