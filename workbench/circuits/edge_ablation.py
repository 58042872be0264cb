"""The traced circuit of edges, ablated under several protocols: rows of the table that `ablate` writes.

One kind of rows a protocol ("edges (resample)", ...): the circuit, its complement, the whole model, nothing, the
so many best edges, and random circuits with as many edges between such components. `n_nodes` counts edges here
and `node_ids` names them, `writer->reader`. Everything is run by one `Judge`, so that all rows of a protocol
share their prompts and their replaced values. Status: exact for these prompts under the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.circuits.circuit_graph import CircuitGraph
from workbench.circuits.faithfulness import faithfulness
from workbench.circuits.graph_files import load_graph
from workbench.circuits.scoring.areas import MIB_SIZES
from workbench.circuits.validation.judge import EdgeRun, Judge, open_judge
from workbench.circuits.validation.nulls import random_masks
from workbench.circuits.validation.protocol import Protocol
from workbench.circuits.validation.ranking import Ranking
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.executor import EdgeExecutor
from workbench.circuits.wiring.replacement import Replacement
from workbench.errors import UserError, nearest
from workbench.intervals import mean_estimate
from workbench.progress import Progress
from workbench.tasks import Batch

FOLDER = "wiring"
PROTOCOLS = {kind: Protocol(kind=kind) for kind in ("resample", "position_mean", "mean", "zero", "optimal")}


@dataclass(frozen=True, eq=False)
class EdgeCircuit:
    """A traced circuit of edges.

    Attributes:
        wiring: The model's edges.
        scores: Of every edge, in logits; the exact effect where there is one, else the estimate (writer, reader).
        kept: The circuit (writer, reader).
    """

    wiring: Wiring
    scores: Float[Tensor, "writer reader"]
    kept: Bool[Tensor, "writer reader"]


def read_edge_circuit(folder: Path, wiring: Wiring) -> EdgeCircuit:
    """The circuit that `trace` left in `circuits/<task>`.

    Raises:
        UserError: the task was traced without edges, or for another model.
    """
    if not (folder / FOLDER).is_dir():
        raise UserError(f"task {folder.name!r} was traced without edges: trace it again with edges")
    graph = load_graph(folder / FOLDER)
    scores, kept = torch.zeros(wiring.allowed.shape), torch.zeros_like(wiring.allowed)
    values, chosen = _scores_of(graph), graph.kept
    assert chosen is not None  # `trace` writes it
    for i, (source, target) in enumerate(zip(graph.source.tolist(), graph.target.tolist(), strict=True)):
        edge = (graph.ids[source], graph.ids[target])
        wiring.check_edge(edge)
        place = wiring.row[edge[0]], wiring.column[edge[1]]
        scores[place], kept[place] = values[i], chosen[i]
    return EdgeCircuit(wiring, scores, kept)


def _scores_of(graph: CircuitGraph) -> Tensor:
    exact = graph.intervened
    return graph.weight if exact is None else torch.where(exact.isnan(), graph.weight, exact)


def edge_rows(
    circuit: EdgeCircuit,
    batches: Sequence[Batch],
    *,
    reference: Sequence[Batch],
    protocols: Sequence[str],
    n_random: int,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """One row a set and protocol, with the columns of `ablating.set_rows`, `kind` and `protocol`.

    Args:
        circuit: What was traced.
        batches: Held-out pairs to judge on.
        reference: Pairs that give means.
        protocols: Some of `PROTOCOLS`.
        n_random: Random circuits of each protocol.
        n_resamples: Bootstrap resamples over prompts.
        seed: Of the random circuits and the resampling.

    Raises:
        UserError: an unknown protocol.
    """
    unknown = next((kind for kind in protocols if kind not in PROTOCOLS), None)
    if unknown is not None:
        raise UserError(f"protocol {unknown!r} is not known; {nearest(unknown, PROTOCOLS)}")
    masks = planned_masks(circuit, n_random=n_random, seed=seed)
    executor, tables = EdgeExecutor(circuit.wiring.anatomy, circuit.wiring), []
    with Progress(len(masks) * len(batches) * len(protocols), "ablating edges", "circuits") as progress:
        for kind in protocols:
            run = counted(executor, progress)
            judge = open_judge(circuit.wiring, PROTOCOLS[kind], batches, reference=reference, run_edges=run)
            rows = _rows(judge, masks, n_resamples=n_resamples, seed=seed)
            name = f"edges ({kind.replace('_', ' ')})"
            tables.append(rows.assign(kind=name, protocol=judge.protocol.describe()))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def planned_masks(circuit: EdgeCircuit, *, n_random: int, seed: int) -> dict[str, Bool[Tensor, "w r"]]:
    """The sets to run, by name: traced, complement, full, empty, top-<n>, random-<i> and their complements."""
    pool, ranking = circuit.wiring.allowed, Ranking(circuit.wiring, circuit.scores)
    sizes = [n for n in ranking.sizes_of(MIB_SIZES) if n < ranking.n_total]
    masks = {"traced": circuit.kept, "complement": pool & ~circuit.kept}
    masks |= {"full": pool, "empty": torch.zeros_like(pool)}
    masks |= {f"top-{n}": mask for n, mask in zip(sizes, ranking.top(sizes), strict=True)}
    if n_random:
        drawn = random_masks(circuit.kept, circuit.wiring, n_circuits=n_random, matched="kind", seed=seed)
        masks |= {f"random-{i}": mask for i, mask in enumerate(drawn)}
    paired = ("traced", "complement", "full", "empty")
    return masks | {f"~{name}": pool & ~mask for name, mask in masks.items() if name not in paired}


def counted(executor: EdgeExecutor, progress: Progress) -> EdgeRun:
    """Runs edge masks and counts them; a total that was too low grows."""

    def run(batch: Batch, replacement: Replacement, masks: Tensor) -> Tensor:
        found = executor.metrics(batch, replacement, masks)
        progress.total = max(progress.total, progress.done + len(masks))
        progress.advance(len(masks))
        return found

    return run


def _rows(judge: Judge, masks: dict[str, Tensor], *, n_resamples: int, seed: int) -> pd.DataFrame:
    metrics = dict(zip(masks, judge.metrics(torch.stack(list(masks.values()))), strict=True))
    options: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed}
    ends = {"full": metrics["full"], "empty": metrics["empty"]}
    opposite = {"full": "empty", "empty": "full", "complement": "traced", "traced": "complement"}
    rows = []
    for name, metric in metrics.items():
        if name.startswith("~"):
            continue
        other = metrics[opposite.get(name, f"~{name}")]
        kept = faithfulness(metric, **ends, **options)
        row = {"set": name, "n_nodes": int(masks[name].sum())}
        row |= mean_estimate(metric, **options).as_dict("metric_logits")
        row |= {"faithfulness_frac": kept.value, "low": kept.low, "high": kept.high}
        row |= faithfulness(other, **ends, **options).as_dict("completeness_frac")
        rows.append(row | {"node_ids": _names(judge.wiring, masks[name], name)})
    return pd.DataFrame(rows)


def _names(wiring: Wiring, mask: Tensor, name: str) -> list[str]:
    """The edges of a set, for the circuit and random ones; prefixes and ends follow from the trace."""
    if name != "traced" and not name.startswith("random-"):
        return []
    return [f"{wiring.writers[w]}->{wiring.readers[r]}" for w, r in np.argwhere(mask.numpy()).tolist()]
