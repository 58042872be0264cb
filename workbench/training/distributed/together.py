"""The pieces of the loop for several processes: one trainer, one checkpoint, one log.

Every process holds its share; a checkpoint holds the whole, as one process would write it, so a training may
go on with another number of processes. Process 0 writes; what the others would print is dropped. Whether to
write a checkpoint or to stop is agreed in every step, because the others must take part.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.errors import UserError, nearest
from workbench.training.batch import Batch
from workbench.training.checkpoint import checkpoint_folders
from workbench.training.checkpointer import Checkpointer
from workbench.training.distributed.place import MODES, Place
from workbench.training.distributed.share import part_of, share, whole_of
from workbench.training.metrics import Metrics, MetricsLog
from workbench.training.optimiser_options import OptimiserOptions
from workbench.training.step import Trainer


@contextmanager
def together(mode: str) -> Iterator[Place | None]:
    """Within the block the processes that torchrun started are joined; None where there is only one.

    Raises:
        UserError: the mode is not known.
    """
    if mode not in MODES:
        raise UserError(f"parallel {mode!r} is not known; {nearest(mode, MODES)}")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        place = Place(mode, dist.get_rank(), dist.get_world_size())
        with redirect_stdout(io.StringIO()) if place.rank else _as_is():
            yield place
        dist.barrier()
    finally:
        dist.destroy_process_group()


@contextmanager
def _as_is() -> Iterator[None]:
    yield


class SharedTrainer(Trainer):
    """One process's share of a trainer.

    Args:
        whole: A trainer before its first step, the same in every process.
        place: This process.
        options: Of the optimiser.
        seed: Of the training.

    Raises:
        UserError: the training cannot be shared in this way.
    """

    def __init__(self, whole: Trainer, place: Place, options: OptimiserOptions, *, seed: int) -> None:
        if place.mode == "latents" and options.clip_norm is not None:
            raise UserError(
                f"optimiser clip_norm {options.clip_norm} needs all latents in one process: use parallel 'data'"
            )
        self.place, self.d_sae = place, whole.trainee.architecture.d_sae
        super().__init__(share(whole.trainee, place), whole.schedule, options, seed=seed)

    def gradients(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The gradients of the whole batch."""
        found = super().gradients(leaves)
        if self.place.mode == "data":
            for gradient in found.values():
                dist.all_reduce(gradient)
                gradient /= self.place.size
        return found

    def train_batch(self, batch: Batch, *, measure: bool = True):
        """One step on this process's rows."""
        return super().train_batch(self.place.rows(batch), measure=measure)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that decides the steps to come, whole; all processes must call it."""
        return {n: whole_of(n, t, self.d_sae, self.place) for n, t in super().state().items()}

    def load_state(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Take over this process's share of a whole state."""
        chosen = self.place.latents(self.d_sae)
        super().load_state(step, {n: part_of(n, t, self.d_sae, chosen) for n, t in state.items()})


class SharedCheckpointer(Checkpointer):
    """Writes one whole checkpoint, in process 0; the processes agree on when."""

    trainer: SharedTrainer

    def _agreed(self, wish: bool) -> bool:
        votes = self.trainer.trainee.tokens_since_fired.new_tensor([int(wish)])
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return bool(votes)

    def due(self) -> bool:
        """Whether a process finds that it is time."""
        return self._agreed(super().due())

    def stopping(self, requested: int | None) -> bool:
        """Whether a process was told to stop."""
        return self._agreed(requested is not None)

    def write(self, step: int, tensors: Mapping[str, Tensor]) -> Path:
        """Process 0 writes; the others wait."""
        path = super().write(step, tensors) if self.trainer.place.rank == 0 else self.folder
        dist.barrier()
        return checkpoint_folders(self.folder)[-1] if self.trainer.place.rank else path


class NoLog(MetricsLog):
    """The log of a process that writes none."""

    def __init__(self) -> None:
        pass

    def add(self, row: Metrics) -> None:
        """Nothing."""

    def write(self) -> None:
        """Nothing."""
