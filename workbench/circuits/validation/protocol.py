"""What happens to everything outside a circuit, as data: every number of the validation carries its protocol.

    kind         what a removed node or edge carries
      resample       its value on another prompt: the paired counterfactual, or one drawn from the reference set
      mean           its mean over the tokens of the reference prompts
      position_mean  its mean at that position over reference prompts of the same length
      zero           nothing
      optimal        a constant of each node, learned to do the least harm under random ablations (`optimal.py`)
    positions    where: at all positions, or at some of them (elsewhere everything stays live)
    direction    noising: clean prompts run, everything outside the circuit is replaced;
                 denoising: counterfactual prompts run, the circuit alone is given its clean values
    reference    which prompts means, other prompts and constants come from

Scores of one circuit differ much between protocols (Miller, Chughtai and Saunders 2024, arXiv:2407.08734), so
faithfulness without its protocol says little. Sources of the kinds: Wang et al. 2022, arXiv:2211.00593 (means);
Chan et al. 2022, "Causal scrubbing" (resampling); Li and Janson 2024, arXiv:2409.09951 (optimal constants).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from workbench.errors import UserError, nearest

KINDS = ("resample", "mean", "position_mean", "zero", "optimal")
DIRECTIONS = ("noising", "denoising")
SOURCES = ("paired", "counterfactual", "clean", "none")
ALL = "all"
_SETS = ("counterfactual", "clean")
_SOURCES_OF = {"resample": ("paired", *_SETS), "zero": ("none",)}  # the other kinds take _SETS


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where replaced values come from.

    Attributes:
        name: `paired` (each pair's own counterfactual prompt), `counterfactual` or `clean` (those prompts of the
            reference set), or `none` (for zeros).
        number: So many of them; 0 for all.
        seed: Which of them, and which prompt another one is replaced by.
    """

    name: str
    number: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in SOURCES:
            raise UserError(f"reference {self.name!r} is not known; {nearest(self.name, SOURCES)}")
        if self.number < 0:
            raise UserError(
                f"reference number {self.number} is less than 0: give a number of prompts, or 0 for all"
            )

    def describe(self) -> str:
        """In words."""
        if self.name == "paired":
            return "the paired counterfactual prompt"
        number = f"{self.number} " if self.number else ""
        return f"{number}{self.name} prompts of the reference set (seed {self.seed})"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How everything outside a circuit is removed.

    Attributes:
        kind: One of `KINDS`.
        positions: `"all"`, or the positions at which it is removed; negative ones count from the end.
        direction: One of `DIRECTIONS`.
        reference: Where the values come from; None takes the first that the kind can use: `paired` for
            resampling, `none` for zero, `counterfactual` otherwise.
    """

    kind: str
    positions: str | tuple[int, ...] = ALL
    direction: str = "noising"
    reference: Reference | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("kind", self.kind, KINDS), ("direction", self.direction, DIRECTIONS)):
            if value not in known:
                raise UserError(f"{name} {value!r} is not known; {nearest(value, known)}")
        if self.positions != ALL and (isinstance(self.positions, str) or not self.positions):
            raise UserError(
                f"positions {self.positions!r} names no position: give {ALL!r} or a tuple of positions"
            )
        usable = _SOURCES_OF.get(self.kind, _SETS)
        if self.source.name not in usable:
            raise UserError(
                f"reference {self.source.name!r} gives no values for kind {self.kind!r}: give {' or '.join(usable)}"
            )
        if self.direction == "denoising" and not self.paired:
            raise UserError(
                f"direction 'denoising' restores clean values in the paired counterfactual run, so kind {self.kind!r} "
                f"with reference {self.source.name!r} has no meaning: use kind 'resample' with reference 'paired'"
            )

    @property
    def source(self) -> Reference:
        """The reference, with the default of the kind filled in."""
        if self.reference is not None:
            return self.reference
        return Reference(name=_SOURCES_OF.get(self.kind, _SETS)[0])

    @property
    def paired(self) -> bool:
        """Whether each prompt is resampled from its own counterfactual."""
        return self.source.name == "paired"

    def describe(self) -> str:
        """One sentence."""
        where = "at all positions" if self.positions == ALL else f"at positions {list(self.positions)}"
        if self.direction == "denoising":
            return (
                f"Counterfactual prompts run, and {where} the circuit's nodes or edges carry their values on the "
                "paired clean prompt."
            )
        carried = {
            "resample": f"carry their values on {_one_of(self.source)}",
            "mean": f"carry their mean over the tokens of {self.source.describe()}",
            "position_mean": f"carry their mean at that position over {self.source.describe()} of the same length",
            "zero": "carry zero",
            "optimal": f"carry constants learned to do the least harm on {self.source.describe()}",
        }[self.kind]
        return f"Clean prompts run, and {where} nodes or edges outside the circuit {carried}."

    def as_dict(self) -> dict[str, Any]:
        """JSON, with the sentence."""
        positions = self.positions if isinstance(self.positions, str) else list(self.positions)
        return {
            "kind": self.kind,
            "positions": positions,
            "direction": self.direction,
            "reference": asdict(self.source),
            "description": self.describe(),
        }


def _one_of(reference: Reference) -> str:
    return (
        reference.describe() if reference.name == "paired" else f"a prompt drawn from {reference.describe()}"
    )


RESAMPLE = Protocol(kind="resample")
DENOISE = Protocol(kind="resample", direction="denoising")
MEAN = Protocol(kind="mean")
POSITION_MEAN = Protocol(kind="position_mean")
ZERO = Protocol(kind="zero")
OPTIMAL = Protocol(kind="optimal")
