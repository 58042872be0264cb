"""What a user says of the optimiser, checked before anything is read.

    train(run, optimiser={"schedule": "cosine", "clip_norm": 1.0, "ema": 0.999})

Everything has a default, so the mapping holds what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from workbench.errors import UserError, nearest

SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("float32", "bfloat16", "bfloat16-stochastic")
EPSILON = 6.25e-10  # Gao et al. 2024, arXiv:2406.04093, released script


@dataclass(frozen=True, kw_only=True)
class OptimiserOptions:
    """Adam and what surrounds it.

    Attributes:
        schedule: After the warm-up: "linear" or "cosine" decay to zero, or "constant".
        warmup_frac: Share of the steps in which the rate rises.
        decay_frac: Share of the steps, at the end, in which it falls; None for 0.3 (linear) or all after the
            warm-up (cosine).
        betas: Decay of Adam's mean and mean square.
        epsilon: Added to Adam's root.
        clip_norm: Gradients together longer than this are shortened to it; None for no limit. The length is
            that before the projection off unit decoder rows.
        ema: Decay per step of a moving average of the weights, which is then what is exported; None for none.
            The average is corrected for its start and its decoder rows are given unit length again.
        precision: Of matrices: "float32"; "bfloat16" with float32 master weights in the optimiser's state;
            "bfloat16-stochastic" without them, rounded up or down by chance so that small updates are not lost.
            Vectors stay float32, and so does what is computed from the weights.
        lr_factors: Factor of the learning rate by name of a parameter.
    """

    schedule: str = "linear"
    warmup_frac: float = 0.05
    decay_frac: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = EPSILON
    clip_norm: float | None = None
    ema: float | None = None
    precision: str = "float32"
    lr_factors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise UserError(f"optimiser {name} {value!r} is not known; {nearest(str(value), known)}")
        for name, low, high in (("warmup_frac", 0, 1), ("decay_frac", 0, 1), ("epsilon", 0, 1)):
            value = getattr(self, name)
            _check(name, value, value is None or low <= value <= high, f"between {low} and {high}")
        _check("clip_norm", self.clip_norm, self.clip_norm is None or self.clip_norm > 0, "positive")
        _check("ema", self.ema, self.ema is None or 0 < self.ema < 1, "between 0 and 1, both exclusive")
        _check("betas", self.betas, all(0 <= beta < 1 for beta in self.betas), "from 0 to below 1")
        if self.warmup_frac + (self.decay_frac or 0) > 1:
            raise UserError(
                f"optimiser warmup_frac {self.warmup_frac} and decay_frac {self.decay_frac} are more than all steps: "
                "make one smaller"
            )


def _check(name: str, value: object, right: bool, rule: str) -> None:
    if not right:
        raise UserError(f"optimiser {name} {value} is not {rule}: choose another value or leave it out")


def optimiser_options(given: Mapping[str, Any]) -> OptimiserOptions:
    """Options from a mapping of names and values, as they stand in a file or a call.

    Raises:
        UserError: a name is not known, or a value is out of its range or of another kind.
    """
    known = [each.name for each in fields(OptimiserOptions)]
    for name in given:
        if name not in known:
            raise UserError(f"optimiser {name!r} is not an option; {nearest(str(name), known)}")
    try:
        return OptimiserOptions(**{name: _converted(name, value) for name, value in given.items()})
    except (TypeError, ValueError) as error:
        raise UserError(
            f"optimiser {dict(given)} has a value of another kind ({error}): give numbers, two of them for betas"
        ) from error


def _converted(name: str, value: Any) -> Any:
    """Numbers as floats, a list of two as a pair: YAML and JSON know no others."""
    if name in ("schedule", "precision") or value is None:
        return value
    if name == "betas":
        first, second = value
        return float(first), float(second)
    if name == "lr_factors":
        return {key: float(factor) for key, factor in value.items()}
    return float(value)
