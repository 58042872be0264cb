"""How good are the k best nodes or edges, for every k: faithfulness, completeness, CPR and CMD.

    f(C) = (m(C) - m(empty)) / (m(M) - m(empty))        ratio of means over pairs
    completeness(C) = f(M \\ C)                          near 0 when nothing of the behaviour is left outside
    CPR, CMD = integrals of f(C_k) and |1 - f(C_k)| over k / number of all    (`workbench.circuits.scoring.areas`)

M keeps everything, the empty
circuit nothing, so f(M) = 1 and f(empty) = 0. All circuits, complements and ends go through one batched run. The
intervals resample pairs, the same ones for all circuits. Where the whole model is not above the empty circuit
beyond its interval there is no behaviour to keep, and ratios are NaN.

Limits: CPR and CMD depend on the sizes and on what they are shares of, so compare them only at equal axis; MIB ranks
by signed scores for CPR and by absolute ones for CMD.
Sources: Wang et al. 2022, arXiv:2211.00593; Marks et al. 2024, arXiv:2403.19647.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd
import torch

from workbench.circuits.faithfulness import faithfulness
from workbench.circuits.scoring.areas import MIB_SIZES, SizeArea, SizeAxis, cmd, cpr
from workbench.circuits.validation.judge import Judge, Mask, Metrics
from workbench.circuits.validation.ranking import Ranking
from workbench.errors import UserError
from workbench.intervals import Estimate, mean_estimate

N_RESAMPLES = 1000


class Resampling(TypedDict):
    """Options of every interval: how many resamples, and their seed."""

    n_resamples: int
    seed: int


@dataclass(frozen=True)
class Faithful:
    """What one circuit keeps and leaves.

    Attributes:
        faithfulness_frac: f of the circuit.
        completeness_frac: f of everything else.
        circuit_logits: m(C).
        full_logits: m(M).
        empty_logits: m(empty).
        n_kept: Nodes or edges of the circuit.
        kept_frac: The same as a share of all.
        n_prompts: Pairs.
        protocol: As data, with its sentence.
    """

    faithfulness_frac: Estimate
    completeness_frac: Estimate
    circuit_logits: Estimate
    full_logits: Estimate
    empty_logits: Estimate
    n_kept: int
    kept_frac: float
    n_prompts: int
    protocol: dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """Circuits of rising size.

    Attributes:
        table: One row a size: `n_kept`, `kept_frac`, `faithfulness_frac`, `completeness_frac`, `circuit_logits`,
            the last three with `_low` and `_high`.
        cpr: Integral of faithfulness over size, with its axis; higher is better.
        cmd: Integral of its distance from 1, with its axis; lower is better, 0 is ideal.
        full_logits: m(M).
        empty_logits: m(empty).
        n_runs_per_pair: Runs of the model a pair: one a mask, and one for the values of the paired prompt where
            the protocol needs them.
        n_prompts: Pairs.
        protocol: As data, with its sentence.
    """

    table: pd.DataFrame
    cpr: SizeArea
    cmd: SizeArea
    full_logits: Estimate
    empty_logits: Estimate
    n_runs_per_pair: int
    n_prompts: int
    protocol: dict[str, Any]


def judge_circuit(judge: Judge, mask: Mask, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Faithful:
    """Faithfulness and completeness of one circuit, as shares. Status: exact; intervals are over pairs.

    Args:
        judge: Pairs and protocol.
        mask: Nodes (writer) or edges (writer, reader), True = kept.
        n_resamples: Bootstrap resamples.
        seed: Of the resampling.
    """
    pool = judge.whole(mask)
    metrics = judge.metrics(torch.stack([mask, pool & ~mask, pool, torch.zeros_like(pool)]))
    circuit, rest, full, empty = metrics
    options: Resampling = {"n_resamples": n_resamples, "seed": seed}
    return Faithful(
        faithfulness_frac=faithfulness(circuit, full=full, empty=empty, **options),
        completeness_frac=faithfulness(rest, full=full, empty=empty, **options),
        circuit_logits=mean_estimate(circuit, **options),
        full_logits=mean_estimate(full, **options),
        empty_logits=mean_estimate(empty, **options),
        n_kept=int(mask.sum()),
        kept_frac=int(mask.sum()) / int(pool.sum()),
        n_prompts=judge.n_prompts,
        protocol=judge.protocol.as_dict(),
    )


def faithfulness_curve(
    judge: Judge,
    ranking: Ranking,
    *,
    sizes: Sequence[int] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Curve:
    """Faithfulness and completeness of the k best, with CPR and CMD. Status: exact; intervals are over pairs.

    Args:
        judge: Pairs and protocol.
        ranking: Scores and their order.
        sizes: Numbers of nodes or edges, ascending; by default the shares 0.1% to 100% of MIB.
        n_resamples: Bootstrap resamples.
        seed: Of the resampling.

    Raises:
        UserError: sizes that do not rise, or lie outside the model.
    """
    sizes = ranking.sizes_of(MIB_SIZES) if sizes is None else list(sizes)
    _check_rising(sizes)
    masks = ranking.top(sizes)
    pool = ranking.pool
    ends = torch.stack([pool, torch.zeros_like(pool)])
    metrics = judge.metrics(torch.cat([masks, pool & ~masks, ends]))
    kept, rest, (full, empty) = metrics[: len(sizes)], metrics[len(sizes) : -2], metrics[-2:]
    options: Resampling = {"n_resamples": n_resamples, "seed": seed}
    axis = SizeAxis(f"{ranking.unit}_frac", tuple(n / ranking.n_total for n in sizes))
    return Curve(
        table=_table(sizes, axis, kept, rest, full=full, empty=empty, **options),
        cpr=cpr(kept, full=full, empty=empty, axis=axis, ranking=ranking.order, **options),
        cmd=cmd(kept, full=full, empty=empty, axis=axis, ranking=ranking.order, **options),
        full_logits=mean_estimate(full, **options),
        empty_logits=mean_estimate(empty, **options),
        n_runs_per_pair=len(metrics) + judge.protocol.paired,
        n_prompts=judge.n_prompts,
        protocol=judge.protocol.as_dict(),
    )


def _table(
    sizes: Sequence[int],
    axis: SizeAxis,
    kept: Metrics,
    rest: Metrics,
    *,
    full: np.ndarray,
    empty: np.ndarray,
    **options: Unpack[Resampling],
) -> pd.DataFrame:
    rows = []
    for n, share, inside, outside in zip(sizes, axis.sizes, kept, rest, strict=True):
        row: dict[str, float] = {"n_kept": n, "kept_frac": share}
        row |= faithfulness(inside, full=full, empty=empty, **options).as_dict("faithfulness_frac")
        row |= faithfulness(outside, full=full, empty=empty, **options).as_dict("completeness_frac")
        rows.append(row | mean_estimate(inside, **options).as_dict("circuit_logits"))
    return pd.DataFrame(rows)


def _check_rising(sizes: Sequence[int]) -> None:
    if len(sizes) < 2 or any(b <= a for a, b in pairwise(sizes)):
        raise UserError(
            f"sizes {list(sizes)} make no curve: give at least 2 numbers, each larger than the one before"
        )
