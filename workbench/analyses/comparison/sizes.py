"""How much a comparison trains and measures: a size for tests, and one for a result.

The full size is chosen so that 25 learners, 3 seeds and all sites take less than two hours on two cores; the
estimate that is shown before the start is measured on the machine at hand (`estimate.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of data, trainings and measurements.

    Attributes:
        name: "smoke" or "full".
        planted: Size of the planted settings, "small" or "full".
        planted_rows: Stored rows of a planted setting.
        planted_steps: Training steps on them.
        planted_batch: Rows per step.
        planted_lr: Peak learning rate on them.
        model_rows: Captured rows of a model site.
        model_steps: Training steps on them.
        model_batch: Rows per step.
        model_d_sae: Latents of a dictionary of a model site.
        model_k: Latents per row there.
        frontier_k: Further numbers of latents per row at the sites that have a frontier.
        left_out: Sites that are compared only where they are named.
        n_ctx: Tokens of a sequence.
        n_blocks: Held-out blocks for the losses.
        n_measured_rows: Held-out rows for recovery and dead latents.
        n_texts: Labelled texts of the probes.
        seeds: Training seeds.
        law_n: Numbers of latents in the grid of the scaling law (`instruments.py`).
        law_k: Latents per row in that grid.
        rank_blocks: Blocks of text for the effective ranks.
        check_seeds: Seeds of the checks of the methods; none where they are left out.
        timed: Whether learners are timed first, for an estimate; not where that is a tenth of the whole.
    """

    name: str
    planted: str
    planted_rows: int
    planted_steps: int
    planted_batch: int
    planted_lr: float
    model_rows: int
    model_steps: int
    model_batch: int
    model_d_sae: int
    model_k: int
    frontier_k: tuple[int, ...]
    left_out: tuple[str, ...]
    n_ctx: int
    n_blocks: int
    n_measured_rows: int
    n_texts: int
    seeds: tuple[int, ...]
    law_n: tuple[int, ...]
    law_k: tuple[int, ...]
    rank_blocks: int
    check_seeds: tuple[int, ...]
    timed: bool = True


_NOT_IN_SMOKE = (
    "planted.correlated",
    "planted.absorbed",
    "planted.correlated.shuffled",
    "planted.hierarchical.shuffled",
    "planted.absorbed.shuffled",
    "planted.neurons.shuffled",
    "random.mlp",
)
SIZES: Mapping[str, Size] = {
    size.name: size
    for size in (
        Size(
            name="smoke", planted="small", planted_rows=8192, planted_steps=80, planted_batch=128, planted_lr=2e-2,
            model_rows=6_000, model_steps=40, model_batch=256, model_d_sae=192, model_k=8, frontier_k=(),
            left_out=_NOT_IN_SMOKE,
            n_ctx=64, n_blocks=6, n_measured_rows=2048, n_texts=80, seeds=(0, 1),
            law_n=(48, 96, 192), law_k=(2, 4, 8), rank_blocks=4, check_seeds=(), timed=False,
        ),
        Size(
            name="full", planted="full", planted_rows=57_344, planted_steps=2000, planted_batch=256, planted_lr=5e-3,
            model_rows=200_000, model_steps=400, model_batch=1024, model_d_sae=1024, model_k=16,
            frontier_k=(8, 32), left_out=(),
            n_ctx=128, n_blocks=32, n_measured_rows=16_384, n_texts=600, seeds=(0, 1, 2),
            law_n=(256, 512, 1024, 2048), law_k=(8, 16, 32, 64), rank_blocks=192, check_seeds=(0, 1, 2),
        ),
    )
}  # fmt: skip


def find_size(name: str) -> Size:
    """The size of that name.

    Raises:
        UserError: there is none.
    """
    if name not in SIZES:
        raise UserError(f"size {name!r} of a comparison is not known; {nearest(name, SIZES)}")
    return SIZES[name]
