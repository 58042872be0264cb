"""The training stage: a run's activations in, its dictionary out.

    run/activations/<hook>/  ->  run/dictionary/{cfg.json, sae_weights.safetensors, metrics.parquet, checkpoints/}

Batches are pure in (seed, step) and the state is in the checkpoint, so an interrupted training that is
called again ends in the same bits as one that was not interrupted (tests/training/test_resume.py).
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from workbench.capture import LiveStore, open_store
from workbench.dictionaries import Dictionary, find_architecture, load_dictionary, save_dictionary
from workbench.dictionaries.base import StepLosses
from workbench.errors import UserError
from workbench.interrupt import Interruption
from workbench.progress import Progress
from workbench.store import ActivationStore, StoreError
from workbench.training.checkpoint import difference, load_checkpoint, save_checkpoint
from workbench.training.metrics import Metrics, MetricsLog
from workbench.training.options import TrainOptions, chosen_lr
from workbench.training.step import Trainer

Store = ActivationStore | LiveStore

SAMPLE_ROWS = 32_768
LOG_EVERY_STEPS = 5
FORMAT = 2  # raised when the same options give other weights than before


def dictionary_folder(run: Path) -> Path:
    """Where a run keeps its dictionary."""
    return run / "dictionary"


def train(
    run: Path,
    *,
    hook: str | None = None,
    architecture: str = "topk",
    d_sae: int = 4096,
    k: int = 32,
    n_tokens: int = 1_500_000,
    batch_size: int = 2048,
    lr: float | None = None,
    aux_coefficient: float = 1 / 32,
    k_aux: int | None = None,
    dead_after_tokens: int = 10_000,
    seed: int = 0,
    checkpoint_every_steps: int = 200,
    store: Store | None = None,
) -> Dictionary:
    """Train a sparse dictionary on the activations of one hook point and write it to `run/dictionary`.

    Args:
        run: Run folder with captured activations.
        hook: Hook-point name; may be left out where only one was captured.
        architecture: Name in `workbench.dictionaries.ARCHITECTURES`.
        d_sae: Number of latents.
        k: Latents per token.
        n_tokens: Training tokens; the store is read again, in another order, when they are more than it holds.
        batch_size: Tokens per step.
        lr: Peak learning rate; by default `schedule.default_lr`.
        aux_coefficient: Weight of the loss that revives dead latents; 0 for none.
        k_aux: Dead latents per token in it; by default half of the activations' width.
        dead_after_tokens: A latent that fired on none of that many tokens is dead.
        seed: Decides the initial directions and the order of the batches.
        checkpoint_every_steps: Steps between checkpoints.
        store: An opened store, on disk or in memory (`LiveStore`); by default the run's store of `hook`.

    Returns:
        The dictionary, as `load_dictionary` reads it. One that was made from the same store and options is
        returned as it is; an interrupted training continues.

    Raises:
        UserError: nothing was captured at `hook`, an option is out of its range, or the loss is not finite.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written first. (SIGTERM: SystemExit.)

    Status: exact (bit-reproducible in the seed on a CPU with the same number of threads).
    """
    if checkpoint_every_steps < 1:
        raise UserError(
            f"checkpoint_every_steps {checkpoint_every_steps} is not at least 1: choose more steps"
        )
    options = TrainOptions(
        architecture=architecture, d_sae=d_sae, k=k, batch_size=batch_size, n_tokens=n_tokens,
        lr=chosen_lr(lr, d_sae), aux_coefficient=aux_coefficient, k_aux=k_aux,
        dead_after_tokens=dead_after_tokens, seed=seed,
    )  # fmt: skip
    store = open_store(run, hook) if store is None else store
    identity = {"format": FORMAT, "store": store.hash, **asdict(options)}
    folder = dictionary_folder(run)
    if (finished := _finished(folder, identity)) is not None:
        return finished
    try:
        trainer = _new_trainer(store, options)
        reader: dict[str, Any] = _continue(trainer, folder, identity) or {"seed": options.seed}
        _run(trainer, store, options, folder, identity, checkpoint_every_steps, reader)
    except StoreError as error:
        raise UserError(str(error)) from error
    return _finish(trainer, store, folder, identity)


def _finished(folder: Path, identity: dict[str, Any]) -> Dictionary | None:
    """The dictionary that these options made before, if it is still there."""
    if not (folder / "cfg.json").exists():
        return None
    found = load_dictionary(folder)
    if difference(found.metadata.get("identity", {}), identity) is None:
        return found
    return None


def _new_trainer(store: Store, options: TrainOptions) -> Trainer:
    """A trainer before its first step; the same bits for the same store and options."""
    batches = store.batches(options.batch_size, seed=options.seed)
    n_batches = max(1, min(SAMPLE_ROWS, store.n_rows) // options.batch_size)
    sample = torch.cat(list(islice(batches, n_batches)))[:SAMPLE_ROWS]
    trainee = find_architecture(options.architecture).trainee
    generator = torch.Generator().manual_seed(options.seed)
    return Trainer(trainee.initialise(sample, options.trainee_options, generator), options.schedule)


def _continue(trainer: Trainer, folder: Path, identity: dict[str, Any]) -> dict[str, int] | None:
    """Load the newest checkpoint of this training, if there is one; returns the state of its reader."""
    checkpoint = load_checkpoint(folder / "checkpoints", identity)
    if checkpoint is None:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return None
    trainer.load_state(checkpoint.step, checkpoint.tensors)
    return checkpoint.reader


def _run(
    trainer: Trainer,
    store: Store,
    options: TrainOptions,
    folder: Path,
    identity: dict[str, Any],
    checkpoint_every_steps: int,
    reader: dict[str, Any],
) -> None:
    """Steps until the last, with log, progress and checkpoints."""

    def save() -> Path:
        log.write()
        where = folder / "checkpoints"
        return save_checkpoint(where, trainer.step, trainer.state(), identity, reader=batches.state())

    log = MetricsLog(folder / "metrics.parquet", after_step=trainer.step)
    done, total = trainer.step * options.batch_size, options.n_steps * options.batch_size
    batches = store.reader(options.batch_size, **reader)
    recorder = _Recorder(log, trainer, options.batch_size)
    with Interruption() as interruption, Progress(total, "training", "tokens", done=done) as progress:
        while trainer.step < options.n_steps:
            losses = trainer.train_batch(next(batches))
            recorder.record(losses)
            progress.advance(options.batch_size, f"FVU {losses.fvu:.3f}, dead {losses.dead_frac:.1%}")
            if interruption.requested is not None:
                name = save().name
                interruption.stop(f"training: stopped after checkpoint {name}; the same call continues it")
            if trainer.step % checkpoint_every_steps == 0 and trainer.step < options.n_steps:
                save()
    log.write()


class _Recorder:
    """Turns every few steps' losses into a row of the log."""

    def __init__(self, log: MetricsLog, trainer: Trainer, batch_size: int) -> None:
        self.log, self.trainer, self.batch_size = log, trainer, batch_size
        self._step, self._time = trainer.step, time.monotonic()

    def record(self, losses: StepLosses) -> None:
        step = self.trainer.step
        if step % LOG_EVERY_STEPS and step != self.trainer.schedule.n_steps:
            return
        now = time.monotonic()
        rate = (step - self._step) * self.batch_size / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        lr = self.trainer.schedule.at(step - 1)
        measured = (losses.fvu, losses.l0, losses.dead_frac, losses.aux_loss)
        self.log.add(Metrics(step, step * self.batch_size, float(losses.loss.detach()), *measured, lr, rate))


def _finish(trainer: Trainer, store: Store, folder: Path, identity: dict[str, Any]) -> Dictionary:
    """Write the dictionary, drop what belonged to an older one and the checkpoints, and read it back."""
    description = store.description
    metadata = {
        "identity": identity,
        "store": store.hash,
        "model": description.get("model"),
        "model_hash": description.get("model_hash"),
        "precision": description.get("precision"),
        "n_ctx": store.n_ctx,
        "input_scale": trainer.trainee.scale,
    }
    (folder / "evaluation.json").unlink(missing_ok=True)
    save_dictionary(trainer.trainee.export(hook_name=description["hook"], metadata=metadata), folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return load_dictionary(folder)
