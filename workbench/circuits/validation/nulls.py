"""What the same measurement gives where there is nothing to find.

    random circuits    as many nodes or edges of each kind, drawn at random: share at least as faithful
    random weights     the same circuit in a freshly initialised model of the same shape
    shuffled answers   the same prompts with the answers of other prompts: nothing to be faithful to

A measurement is a function of a judge, so that each control repeats it exactly. Faithfulness is a share of what the
model does, so it can be high where the model does next to nothing; controls are therefore compared by what the
circuit recovers in logits, m(C) - m(empty). `beats_control` is true where the circuit's interval lies above the
control's. Shuffled answers are no strict null where any other answer is right too (larger years in `greater_than`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.circuits.faithfulness import faithfulness
from workbench.circuits.validation.curves import N_RESAMPLES
from workbench.circuits.validation.judge import Judge, Mask
from workbench.circuits.wiring.catalogue import Wiring
from workbench.errors import UserError, nearest
from workbench.intervals import UNDEFINED, Estimate, difference_estimate

MATCHES = ("none", "kind", "kind+layer")
RANDOM_AS_GOOD_FRAC = 0.05
Z = 1.959963984540054  # of the normal distribution, for 95%
Measure = Callable[[Judge], Estimate]


@dataclass(frozen=True)
class Control:
    """One number of a circuit beside the same number of its control.

    Attributes:
        name: `random-weights` or `shuffled-answers`.
        circuit: Of the circuit.
        control: Of the control.
        beats_control: Whether the circuit's interval lies above the control's; false where one is NaN.
    """

    name: str
    circuit: Estimate
    control: Estimate
    beats_control: bool


@dataclass(frozen=True)
class RandomCircuits:
    """A circuit among random ones of its size.

    Attributes:
        faithfulness_frac: Of the circuit.
        random_frac: Of each random circuit.
        as_good_frac: Share of random circuits at least as faithful, with its Wilson interval.
        matched: What they share with the circuit beside its size, one of `MATCHES`.
        beats_control: Whether at most `RANDOM_AS_GOOD_FRAC` of them are as good; false where f is not defined.
    """

    faithfulness_frac: float
    random_frac: tuple[float, ...]
    as_good_frac: Estimate
    matched: str
    beats_control: bool


def random_circuits(
    judge: Judge,
    mask: Mask,
    *,
    n_circuits: int = 100,
    matched: str = "kind",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> RandomCircuits:
    """Share of random circuits of equal size that are at least as faithful. Status: exact for these pairs.

    Args:
        judge: Pairs and protocol.
        mask: The circuit, of nodes or of edges.
        n_circuits: Random circuits.
        matched: `none`, or `kind` (as many heads, MLPs; as many edges from such writers into such readers), or
            `kind+layer`.
        n_resamples: Bootstrap resamples that decide whether there is a behaviour to keep.
        seed: Of the drawing.

    Raises:
        UserError: no circuit to draw, or unknown `matched`.
    """
    drawn = random_masks(mask, judge.wiring, n_circuits=n_circuits, matched=matched, seed=seed)
    pool = judge.whole(mask)
    metrics = judge.metrics(torch.cat([torch.stack([pool, torch.zeros_like(pool), mask]), drawn]))
    full, empty = metrics[:2]
    own = faithfulness(metrics[2], full=full, empty=empty, n_resamples=n_resamples, seed=seed).value
    drop = (full - empty).mean()
    scores = tuple(float((m - empty).mean() / drop) if not math.isnan(own) else math.nan for m in metrics[3:])
    share = wilson(sum(score >= own for score in scores), n_circuits) if not math.isnan(own) else UNDEFINED
    return RandomCircuits(own, scores, share, matched, share.value <= RANDOM_AS_GOOD_FRAC)


def random_masks(
    mask: Mask, wiring: Wiring, *, n_circuits: int, matched: str, seed: int
) -> Bool[Tensor, "circuit ..."]:
    """Random circuits with as many nodes or edges of each group as `mask`, drawn without replacement.

    Raises:
        UserError: no circuit to draw, or unknown `matched`.
    """
    if matched not in MATCHES:
        raise UserError(f"matched {matched!r} is not known; {nearest(matched, MATCHES)}")
    if n_circuits < 1:
        raise UserError(f"n_circuits {n_circuits} is less than 1: give at least 1, and 100 for a fair share")
    groups = _groups(mask, wiring, matched)
    rng = np.random.default_rng(seed)
    found = torch.zeros(n_circuits, mask.numel(), dtype=torch.bool)
    flat = mask.flatten()
    for places in groups.values():
        n = int(flat[places].sum())
        for row in range(n_circuits if n else 0):
            found[row, rng.choice(places, n, replace=False)] = True
    return found.unflatten(1, tuple(mask.shape))


def wilson(n_hits: int, n: int) -> Estimate:
    """A share with its 95% Wilson score interval, which leaves room for hits where there were none.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    share, z2 = n_hits / n, Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def compare(name: str, measure: Measure, judge: Judge, control: Judge) -> Control:
    """The same measurement of a circuit and of its control. Status: as the measurement.

    Args:
        name: Of the control.
        measure: From a judge to a number with its interval, higher is better.
        judge: The model and task of the circuit.
        control: A judge of the random-weight model, or of pairs with shuffled answers.
    """
    own, other = measure(judge), measure(control)
    return Control(name, own, other, own.low > other.high)


def recovered_logits(judge: Judge, mask: Mask, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Estimate:
    """m(C) - m(empty) in logits: what a circuit does by itself. Status: exact; the interval is over pairs."""
    circuit, empty = judge.metrics(torch.stack([mask, torch.zeros_like(mask)]))
    return difference_estimate(circuit, empty, paired=True, n_resamples=n_resamples, seed=seed)


def _groups(mask: Mask, wiring: Wiring, matched: str) -> dict[tuple, list[int]]:
    """Flat places that may stand for one another."""
    groups: dict[tuple, list[int]] = {}
    writers = [_kind(name, matched) for name in wiring.writers]
    readers = [_kind(name, matched) for name in wiring.readers]
    places: Sequence = (
        wiring.allowed.nonzero().tolist() if mask.ndim == 2 else [[w] for w in range(wiring.n_writers)]
    )
    for place in places:
        key = (writers[place[0]], readers[place[1]]) if mask.ndim == 2 else (writers[place[0]],)
        flat = place[0] * mask.shape[1] + place[1] if mask.ndim == 2 else place[0]
        groups.setdefault(key, []).append(flat)
    return groups


def _kind(name: str, matched: str) -> tuple[str, str]:
    """What has to agree: (kind, layer), each empty where it need not."""
    if matched == "none":
        return "", ""
    stem, _, part = name.partition(".h")
    kind = stem[0] + (part.partition(".")[2]) if stem not in ("embed", "logit") else stem
    return kind, stem[1:] if matched == "kind+layer" else ""
