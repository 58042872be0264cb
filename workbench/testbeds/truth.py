"""Test beds: models whose circuit is known, with the prompts that it answers.

    bed = make_testbed("compiled.induction", sharpness=10.0, leak=0.05, seed=0)
    batch = bed.batch(64, 0)
    scores of all edges against bed.edges

**What the edge truth is.** An edge (writer, reader) is true when the difference between clean and
counterfactual prompts travels along it to the logit difference of the last position. An edge that carries
only constants (a query made of a position alone) takes part in the computation, but exchanging its value for
the counterfactual one changes nothing, so it is not in the truth. What the truth says therefore belongs to
the bed's pairs: where a family of pairs never changes a value, its path is not true.

**Names.** Writers: `embed`, `a{layer}.h{head}`, `m{layer}`. Readers: `a{layer}.h{head}.q`, `.k`, `.v`,
`m{layer}`, `logit`. `nodes` are the writers of true edges.

**Limits.** In a bed with noise (`leak` above 0) every other edge has a small effect too; the truth is that of
the written weights. Beds without a known truth have None and say so in `note`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from workbench.errors import UserError, nearest
from workbench.tasks import TASKS, Batch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from workbench.dictionaries import Dictionary

Edge = tuple[str, str]
Feature = tuple[str, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class TestBed:
    """A model, its prompts and what is known of its circuit.

    Attributes:
        name: As given to `make_testbed`.
        title: One line.
        description: What the prompts ask and how the model answers.
        model: The bridge, in evaluation mode with frozen parameters.
        sampler: (n_pairs, seed) to pairs of one prompt length; use `batch`.
        nodes: Writers that carry the difference; None where not known.
        edges: (writer, reader) pairs that carry it; None where not known.
        dictionaries: Dictionary by hook name, where the bed's features are known.
        feature_nodes: (hook, latent) of the features that carry it; None where not known.
        feature_edges: Pairs of such features of which one reads the other; None where not known.
        feature_wiring: The same pairs and those that lead to no logit; None where not known.
        note: What is not known, or what a score on this bed must take into account.
    """

    __test__: ClassVar[bool] = False

    name: str
    title: str
    description: str
    model: TransformerBridge
    sampler: Callable[[int, int], Batch]
    nodes: frozenset[str] | None = None
    edges: frozenset[Edge] | None = None
    dictionaries: Mapping[str, Dictionary] = field(default_factory=dict)
    feature_nodes: frozenset[Feature] | None = None
    feature_edges: frozenset[tuple[Feature, Feature]] | None = None
    feature_wiring: frozenset[tuple[Feature, Feature]] | None = None
    note: str = ""

    def batch(self, n_pairs: int, seed: int) -> Batch:
        """`n_pairs` prompt pairs of one length. Status: bit-reproducible in (n_pairs, seed).

        Raises:
            UserError: n_pairs is less than 1.
        """
        if n_pairs < 1:
            raise UserError(f"n_pairs {n_pairs} is less than 1: a batch has at least one pair")
        return self.sampler(n_pairs, seed)

    @torch.no_grad()
    def accuracy_frac(self, *, n_pairs: int = 256, seed: int = 0, among_all: bool = True) -> float:
        """Share of prompts, clean and counterfactual, that are answered right.

        Args:
            n_pairs: Pairs that are drawn.
            seed: Decides them.
            among_all: The answer has the largest logit of all; else a larger one than the pair's other answer.
        """
        batch = self.batch(n_pairs, seed)
        ids = torch.cat([batch.clean, batch.counterfactual])
        answers = torch.cat([batch.answer, batch.counterfactual_answer])[:, None]
        others = torch.cat([batch.counterfactual_answer, batch.answer])[:, None]
        device = next(self.model.parameters()).device
        logits = self.model(ids.to(device), return_type="logits")[:, -1].cpu()
        if among_all:
            return float((logits.argmax(-1, keepdim=True) == answers).float().mean())
        return float((logits.gather(1, answers) > logits.gather(1, others)).float().mean())


def nodes_of(edges: Iterable[Edge]) -> frozenset[str]:
    """The writers of edges."""
    return frozenset(writer for writer, _ in edges)


def all_edges(*, n_layers: int, n_heads: int, has_mlp: bool = True) -> list[Edge]:
    """Every (writer, reader) of a sequential model, readers in the order of computation."""
    writers, edges = ["embed"], []
    for layer in range(n_layers):
        heads = [f"a{layer}.h{head}" for head in range(n_heads)]
        edges += [(w, f"{head}.{part}") for head in heads for part in "qkv" for w in writers]
        writers += heads
        if has_mlp:
            edges += [(w, f"m{layer}") for w in writers]
            writers.append(f"m{layer}")
    return edges + [(w, "logit") for w in writers]


def edges_of(model: TransformerBridge) -> list[Edge]:
    """Every (writer, reader) of a bridge whose blocks are sequential and whose heads have their own keys."""
    cfg = model.cfg
    return all_edges(n_layers=cfg.n_layers, n_heads=cfg.n_heads, has_mlp=not cfg.attn_only)


Builder = Callable[..., TestBed]
# Family (a module here with `BEDS`, name to builder) and its beds.
FAMILIES: dict[str, tuple[str, ...]] = {
    "compiled": (
        "induction", "previous_token", "two_hop", "chain", "parallel", "suppression", "pointer", "ioi",
        "greater_than", "and_gate", "or_gate", "xor_and", "fact_lookup",
    ),
    "tracr": (
        "reverse", "sort", "hist", "most_frequent", "dyck", "shuffle_dyck", "previous_token", "two_back",
        "count", "count_parity", "count_less_frequent", "pattern", "first_matches", "induction",
    ),
    "wired": ("moved", "tower"),
    "siit": ("clamp", "two_hop", "choice"),
    "task": tuple(TASKS),
}  # fmt: skip
TESTBEDS: tuple[str, ...] = tuple(f"{family}.{bed}" for family, beds in FAMILIES.items() for bed in beds)


def make_testbed(name: str, **options: Any) -> TestBed:
    """The bed of that name.

    Args:
        name: One of `TESTBEDS`.
        options: The bed's own, `seed` and `dtype` among them where they mean something.

    Raises:
        UserError: the name or an option is not known.
    """
    if name not in TESTBEDS:
        raise UserError(f"test bed {name!r} is not known; {nearest(name, TESTBEDS)}")
    family, _, bed = name.partition(".")
    builder: Builder = importlib.import_module(f"workbench.testbeds.{family}").BEDS[bed]
    known = list(inspect.signature(builder).parameters)
    unknown = next((option for option in options if option not in known), None)
    if unknown is not None:
        raise UserError(f"test bed {name!r} has no option {unknown!r}; {nearest(unknown, known)}")
    return builder(**options)
