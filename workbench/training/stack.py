"""Several dictionaries on one stream: every batch is read once and trains all of them.

Members share nothing but the batch, so each ends in the bits that it ends in alone (on one thread: sums of
torch may be cut differently on several). Members are what runs side by side: each is computed by one
thread, which keeps both cores busy without cutting small products into smaller ones.

A stack looks like one `Trainer` to the loop. Its checkpoint holds all members under `<member>/<tensor>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from workbench.dictionaries import StepLosses
from workbench.errors import UserError
from workbench.kernels import threads
from workbench.training.recorder import Recorder
from workbench.training.source import Batch
from workbench.training.step import Trainer
from workbench.training.watch import DivergedError


class Stack(Trainer):
    """Trainers of equal length, by name.

    Attributes:
        members: The trainers.
        losses: What each measured in the last step.
    """

    def __init__(self, members: Mapping[str, Trainer]) -> None:
        if len({trainer.schedule.n_steps for trainer in members.values()}) != 1:
            raise UserError(
                "members of a sweep train for the same number of steps: give n_tokens once, for all"
            )
        self.members = dict(members)
        self.losses: dict[str, StepLosses] = {}
        first = next(iter(self.members.values()))
        self.trainee, self.schedule, self.watch = first.trainee, first.schedule, _Watches(self)

    @property
    def step(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps done."""
        return next(iter(self.members.values())).step

    def train_batch(self, batch: Batch, *, measure: bool = True) -> StepLosses:
        """One step of every member; gives back the first one's losses.

        Raises:
            DivergedError: the loss of a member is not finite or explodes; it is named.
        """
        threads.run(self._one, [(name, batch, measure) for name in self.members])
        return next(iter(self.losses.values()))

    def _one(self, name: str, batch: Batch, measure: bool) -> None:
        with torch.enable_grad(), _named(name):
            self.losses[name] = self.members[name].train_batch(batch, measure=measure)

    def settle(self) -> None:
        """As `Trainer.settle`, for all."""
        for name, trainer in self.members.items():
            with _named(name):
                trainer.settle()

    def state(self) -> dict[str, Tensor]:
        """All tensors of all members."""
        states = {name: trainer.state() for name, trainer in self.members.items()}
        return {f"{name}/{key}": tensor for name, state in states.items() for key, tensor in state.items()}

    def load_state(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Continue all members after `step` steps."""
        for name, trainer in self.members.items():
            trainer.load_state(step, own_tensors(name, state))


def own_tensors(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A member's part of the state of all."""
    return {key.removeprefix(f"{name}/"): t for key, t in state.items() if key.startswith(f"{name}/")}


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Within the block a divergence names the member."""
    try:
        yield
    except DivergedError as error:
        raise DivergedError(f"member {name!r}: {error}") from error


class _Watches:
    """The members' watches as one."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    @property
    def suspicious(self) -> bool:
        """Whether the loss of one member is under suspicion."""
        return any(trainer.watch.suspicious for trainer in self.stack.members.values())


class Recorders(Recorder):
    """One recorder for each member of a stack; looks like one to the loop."""

    def __init__(self, stack: Stack, recorders: Mapping[str, Recorder]) -> None:
        self.stack, self.recorders = stack, dict(recorders)
        first = next(iter(self.recorders.values()))
        self.batch_size, self.every_steps, self.trainer, self.note = (
            first.batch_size,
            first.every_steps,
            stack,
            "",
        )

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within the block all members wait for data."""
        with ExitStack() as entered:
            for recorder in self.recorders.values():
                entered.enter_context(recorder.waiting())
            yield

    def record(self, losses: StepLosses) -> None:
        """Add every member's row, if the step is one of those."""
        if not self.wants(self.stack.step):
            return
        for name, recorder in self.recorders.items():
            recorder.record(self.stack.losses[name])
        fvu = [float(found.fvu) for found in self.stack.losses.values()]
        self.note = f"{len(fvu)} dictionaries, FVU {min(fvu):.3f} to {max(fvu):.3f}"

    def write(self) -> None:
        """Write all logs."""
        for recorder in self.recorders.values():
            recorder.write()

    def close(self) -> None:
        """Write what is in memory."""
        for recorder in self.recorders.values():
            recorder.close()
