"""One number an edge, with what it is and how good it is known to be.

Every way of scoring edges returns an `EdgeScores`, in logits and in the sign of the package: positive helps the
answer. Scores are means over prompts; those of single prompts are kept on request, for intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from workbench.circuits.circuit_graph import CircuitGraph
from workbench.circuits.node_names import graph_of_edges
from workbench.circuits.wiring.catalogue import Edge, Wiring
from workbench.errors import UserError
from workbench.tasks import Batch


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """Scores of all edges of a model.

    Attributes:
        wiring: The model's edges.
        scores: One a pair, mean over prompts; NaN where there is no edge or none was computed (writer, reader).
        method: Its name.
        settings: What it was run with.
        n_prompts: How many prompts the mean is over.
        per_prompt: The same before the mean (prompt, writer, reader), or None.
        completeness_gap_logits: What a method that should add up lacks, where it is defined.
        evaluations: How many forward or backward passes of one mask were made, where a method counts them.
        unit: Of the scores.
        exact: Effects of the edges that were patched, NaN elsewhere (writer, reader), or None.
        estimated: First-order estimates where `scores` mixes both (writer, reader), or None.
    """

    wiring: Wiring
    scores: Float[Tensor, "writer reader"]
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    n_prompts: int = 0
    per_prompt: Float[Tensor, "prompt writer reader"] | None = None
    completeness_gap_logits: float | None = None
    evaluations: int = 0
    unit: str = "logits"
    exact: Float[Tensor, "writer reader"] | None = None
    estimated: Float[Tensor, "writer reader"] | None = None

    def of_edges(self) -> Float[Tensor, " edge"]:
        """Scores in the order of `Wiring.edges`."""
        return self.scores[self.wiring.pairs[:, 0], self.wiring.pairs[:, 1]]

    def top(self, n: int = 10) -> list[tuple[Edge, float]]:
        """The edges of largest size, largest first; ties in the order of `Wiring.edges`."""
        scores = self.of_edges().nan_to_num(0.0)
        order = scores.abs().argsort(descending=True, stable=True)[:n].tolist()
        return [(self.wiring.edges[i], float(scores[i])) for i in order]

    def to_graph(self, kept: Bool[Tensor, "writer reader"] | None = None) -> CircuitGraph:
        """A graph of all scored edges, or of the kept ones.

        A head is one node that writes; each of its inputs q, k and v is a node of its own that it reads by.
        """
        rows, columns = self.wiring.pairs.T
        chosen = ~self.of_edges().isnan()
        chosen = chosen if kept is None else chosen & kept.to(chosen.device)[rows, columns]
        edges = [self.wiring.edges[i] for i in chosen.nonzero().flatten().tolist()]
        weight = self.scores if self.estimated is None else self.estimated
        meta = {"method": self.method, "settings": dict(self.settings), "n_prompts": self.n_prompts}
        found = {"weight": weight, **({} if self.exact is None else {"intervened": self.exact})}
        parts = {name: values[rows, columns][chosen].float().cpu() for name, values in found.items()}
        weights = parts.pop("weight")
        return graph_of_edges(edges, weights, unit=self.unit, meta=meta, intervened=parts.get("intervened"))


def as_batches(batches: Batch | Sequence[Batch]) -> list[Batch]:
    """One batch or several as a list.

    Raises:
        UserError: there is no batch.
    """
    found = [batches] if isinstance(batches, Batch) else list(batches)
    if not found:
        raise UserError("batches is empty: give at least one batch of prompt pairs")
    return found


def mean_scores(
    wiring: Wiring, total: Float[Tensor, "writer reader"], n_prompts: int
) -> Float[Tensor, "w r"]:
    """The mean over prompts from the sum, NaN where there is no edge."""
    allowed = wiring.allowed.to(total.device)
    return (total / n_prompts).masked_fill(~allowed, float("nan"))
