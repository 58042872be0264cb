"""The circuit of edges of one task: scored, chosen, verified edge by edge, judged with its nulls.

    wiring/nodes.parquet, edges.safetensors, meta.json       a `CircuitGraph`

Every edge carries its estimate (`weight`); the edges of the circuit and those with the largest estimates carry the
exact effect of replacing them alone (`intervened`). `kept` marks the circuit, which `validation.find` chose on one
half of the pairs and judged on the other. `meta.json` holds what was found: size, faithfulness, completeness,
minimality of every node, random circuits, random weights, shuffled answers, and how well estimates predict exact
effects. Status: estimates first-order, everything else exact for these pairs under the protocol given there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from workbench.anatomy import open_anatomy
from workbench.circuits.circuit_graph import CircuitGraph
from workbench.circuits.edge_ablation import counted
from workbench.circuits.setting import Setting
from workbench.circuits.validation.find import FoundCircuit, Goal, Score, find_circuit
from workbench.circuits.validation.nulls import Control
from workbench.circuits.validation.protocol import RESAMPLE
from workbench.circuits.verification import compare
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.eap import eap
from workbench.circuits.wiring.eap_ig import eap_ig_activations, eap_ig_inputs
from workbench.circuits.wiring.edge_scores import EdgeScores
from workbench.circuits.wiring.exact import exact_edges
from workbench.circuits.wiring.executor import EdgeExecutor
from workbench.circuits.wiring.two_stage import two_stage
from workbench.errors import UserError, nearest
from workbench.models import load_random_model
from workbench.progress import Progress
from workbench.tasks import Batch

ESTIMATES = {"eap": eap, "eap-ig": eap_ig_inputs, "eap-ig-activations": eap_ig_activations}
METHODS: dict[str, Score] = {"two-stage": two_stage, **ESTIMATES}
NONE = "none"
VERIFIED_FRAC = 0.05


def check_method(method: str) -> None:
    """Refuse an unknown way of scoring edges.

    Raises:
        UserError: it is neither one of `METHODS` nor "none".
    """
    if method not in (*METHODS, NONE):
        raise UserError(f"edges {method!r} is not known; {nearest(method, (*METHODS, NONE))}")


def trace_edges(
    setting: Setting,
    batches: Sequence[Batch],
    *,
    name: str,
    method: str,
    edges_frac: float,
    n_random: int,
    allow_unsolved: bool,
    n_resamples: int,
    seed: int,
) -> CircuitGraph:
    """The graph of all edges of the model on one task, its circuit marked.

    Args:
        setting: The model.
        batches: Pairs, by length; half of them choose, the others judge.
        name: Of the task.
        method: One of `METHODS`.
        edges_frac: Largest share of edges that the circuit may keep.
        n_random: Random circuits to compare with.
        allow_unsolved: Go on where the model cannot do the task.
        n_resamples: Bootstrap resamples.
        seed: Of the halves, the nulls and the resampling.

    Raises:
        UserError: a task that the model cannot do, or too few pairs for two halves.
    """
    wiring = Wiring(setting.anatomy)
    random_model = load_random_model(setting.model_source, seed=seed, device=str(setting.anatomy.device))
    expected = len(batches) * (2 * round(edges_frac * wiring.n_edges) + n_random)
    with Progress(expected, f"edges of {name}", "circuits") as progress:
        found = find_circuit(
            wiring, batches, METHODS[method], name=name, goal=Goal(edges_frac=edges_frac),
            random_model=Wiring(open_anatomy(random_model)), n_random=n_random, allow_unsolved=allow_unsolved,
            n_resamples=n_resamples, seed=seed, run_edges=counted(EdgeExecutor(setting.anatomy, wiring), progress),
        )  # fmt: skip
    scored = ESTIMATES.get(method, eap_ig_inputs)(wiring, list(batches), per_prompt=True)
    exact = _exact(wiring, batches, scored, found.mask, f"edges of {name}, one by one")
    graph = _graph(scored, exact, found)
    agreement = _agreement(scored, exact, n_resamples=n_resamples, seed=seed)
    return replace(graph, meta={**graph.meta, **describe(found), "agreement": agreement})


def _exact(
    wiring: Wiring, batches: Sequence[Batch], scored: EdgeScores, kept: Tensor, label: str
) -> EdgeScores:
    """Exact effects of the circuit's edges and of the largest estimates, by prompt."""
    n = max(1, round(VERIFIED_FRAC * wiring.n_edges))
    edges = {edge for edge, _ in scored.top(n)}
    edges |= {(wiring.writers[w], wiring.readers[r]) for w, r in kept.nonzero().tolist()}
    ordered = sorted(edges, key=wiring.index.__getitem__)
    with Progress(len(ordered) * len(batches), label, "edges") as progress:
        return exact_edges(wiring, list(batches), edges=ordered, per_prompt=True, progress=progress)


def _graph(scored: EdgeScores, exact: EdgeScores, found: FoundCircuit) -> CircuitGraph:
    wiring = scored.wiring
    rows, columns = wiring.pairs.unbind(1)
    return replace(
        scored.to_graph(),
        intervened=exact.scores.cpu()[rows, columns].float(),
        kept=found.mask.cpu()[rows, columns],
    )


def _agreement(scored: EdgeScores, exact: EdgeScores, *, n_resamples: int, seed: int) -> dict[str, Any]:
    """Estimate against exact effect over the verified edges."""
    there = ~exact.scores.isnan().cpu()
    predicted, intervened = (
        scores.per_prompt.cpu()[:, there].T.double().numpy()
        for scores in (scored, exact)
        if scores.per_prompt is not None
    )
    return compare(predicted, intervened, n_resamples=n_resamples, seed=seed).as_dict()


def describe(found: FoundCircuit) -> dict[str, Any]:
    """What `meta.json` says of the circuit."""
    parts = zip(found.minimality.names, found.minimality.effects, strict=True)
    return {
        "circuit": found.row(),
        "goal": vars(found.goal),
        "protocol": RESAMPLE.as_dict(),
        "nodes_in_circuit": list(found.nodes),
        "minimality": [{"node_id": node, **effect.as_dict("minimality_logits")} for node, effect in parts],
        "dropped": list(found.dropped),
        "random_circuits": {
            "faithfulness_frac": list(found.random.random_frac),
            "matched": found.random.matched,
        },
        "controls": {control.name: _control(control) for control in found.controls},
    }


def _control(control: Control) -> dict[str, Any]:
    return {"beats_control": control.beats_control, **control.control.as_dict("value")}
