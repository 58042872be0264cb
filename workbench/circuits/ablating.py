"""The stage `ablate`: is the traced circuit enough, and is it all? Written to `ablations/<task>.parquet`.

The circuit was chosen on the trace's prompts; here it is judged on others. One row a set: the traced one,
its complement, the whole model, nothing, its prefixes by size, and random sets with as many nodes of each
kind. Three granularities (`kind`): `components` (heads and MLPs), `features` (the dictionary's error is
always kept) and `features+error` (the error is a node like another, outside every circuit; the set
`all-features` keeps everything but it, and shows how much of the task the dictionary holds at all).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.artifacts import atomic_file, read_json
from workbench.circuits.ablation import (
    ablate_components,
    ablate_features,
    codes_at,
    component_means,
    feature_means,
)
from workbench.circuits.edge_ablation import FOLDER, edge_rows, read_edge_circuit
from workbench.circuits.faithfulness import faithfulness
from workbench.circuits.heldout import HeldOut, held_out
from workbench.circuits.nodes import Node
from workbench.circuits.sets import CIRCUIT_KINDS, NodeSet, Traced, plan_sets, read_traced
from workbench.circuits.setting import Setting, open_setting
from workbench.circuits.wiring.catalogue import Wiring
from workbench.errors import UserError
from workbench.intervals import Estimate, mean_estimate
from workbench.progress import Progress
from workbench.tasks import task_name

KINDS = ("components", "features", "features+error")
_MEANS = "mean over {n} held-out counterfactual prompts, position by position within a length; embedding kept"
PROTOCOLS = {
    "components": "heads and MLPs outside the set ablated to their " + _MEANS,
    "features": "features outside the set ablated to their " + _MEANS + "; dictionary error kept",
    "features+error": "features outside the set, and the dictionary error unless in it, ablated to their "
    + _MEANS,
}


@dataclass(frozen=True)
class AblationResult:
    """What `ablate` wrote.

    Attributes:
        task: Name of the task.
        path: `ablations/<task>.parquet` of the run.
        table: One row a set and granularity; `metric_logits` in logits, `*_frac` as shares.
    """

    task: str
    path: Path
    table: pd.DataFrame

    def random_as_good_frac(self, kind: str = "components") -> float:
        """Share of the random sets that are at least as faithful as the traced one; NaN where undefined."""
        rows = [row for row in self.table.to_dict("records") if row["kind"] == kind]
        scores = {row["set"]: float(row["faithfulness_frac"]) for row in rows}
        drawn = [score for name, score in scores.items() if name.startswith("random-")]
        if np.isnan(scores["traced"]) or not drawn:
            return float("nan")
        return sum(score >= scores["traced"] for score in drawn) / len(drawn)


def ablate(
    run: Path,
    *,
    task: str,
    n_pairs: int = 64,
    n_reference: int = 256,
    n_random: int = 20,
    size: int | None = None,
    sizes: Sequence[int] | None = None,
    protocols: Sequence[str] = ("resample", "position_mean", "zero"),
    n_resamples: int = 1000,
    seed: int = 0,
    model: str | None = None,
    device: str | None = None,
) -> AblationResult:
    """Faithfulness and completeness of the traced circuit and of random ones, on held-out prompts.

    Args:
        run: Run folder in which the task was traced.
        task: Name of the task.
        n_pairs: Held-out pairs to judge on; none of them was traced.
        n_reference: Held-out pairs whose counterfactuals give the means, those judged among them.
        n_random: Random sets per granularity.
        size: Judge the so many largest nodes instead of the traced circuit.
        sizes: Prefix sizes to judge besides; by default 1, 2, 4, ...
        protocols: What edges outside the circuit of edges carry: "resample", "position_mean", "mean", "zero",
            "optimal"; empty to leave the circuit of edges out.
        n_resamples: Bootstrap resamples over prompts.
        seed: Of the held-out prompts, the random sets and the resampling.
        model: Model source, when it is not where the run recorded it.
        device: Torch device.

    Raises:
        UserError: the task was not traced, or was traced with another model or dictionary.

    Status: exact for these prompts under the protocol in the table.
    """
    if n_reference < n_pairs:
        raise UserError(
            f"n_reference {n_reference} is less than n_pairs {n_pairs}: the means include all judged pairs"
        )
    name = task_name(task)
    folder = run / "circuits" / name
    circuits = {kind: read_traced(folder, kinds) for kind, kinds in CIRCUIT_KINDS.items()}
    setting = open_setting(run, model=model, device=device)
    meta = check_trace(folder, setting)
    held = held_out(setting, task, meta, n_pairs=n_pairs, n_reference=n_reference, seed=seed)
    plans = {
        kind: plan_sets(traced, size=size, sizes=sizes, n_random=n_random, seed=seed)
        for kind, traced in circuits.items()
    }
    circuits["features+error"], plans["features+error"] = with_error(
        circuits["features"], plans["features"], setting
    )
    n_runs = sum(len(with_complements(plan)) for plan in plans.values()) * len(held)
    tables = []
    with Progress(n_runs, f"ablating {task}", "sets") as progress:
        for kind in KINDS:
            metrics = run_sets(setting, held, kind, with_complements(plans[kind]), circuits[kind], progress)
            rows = set_rows(plans[kind], circuits[kind], metrics, n_resamples=n_resamples, seed=seed)
            tables.append(rows.assign(kind=kind, protocol=PROTOCOLS[kind].format(n=n_reference)))
    if protocols and (folder / FOLDER).is_dir():
        circuit = read_edge_circuit(folder, Wiring(setting.anatomy))
        options = {"n_random": n_random, "n_resamples": n_resamples, "seed": seed}
        pairs, reference = [h.batch for h in held], [h.reference_batch for h in held]
        tables.append(edge_rows(circuit, pairs, reference=reference, protocols=protocols, **options))
    table = pd.concat(tables, ignore_index=True).assign(
        n_prompts=sum(len(h.batch.answer) for h in held), seed=seed
    )
    table.attrs = {key: meta[key] for key in ("task", "metric", "model_hash", "dictionary_hash")}
    path = run / "ablations" / f"{name}.parquet"
    with atomic_file(path) as temporary:
        table.to_parquet(temporary, index=False)
    return AblationResult(name, path, table)


def check_trace(folder: Path, setting: Setting) -> dict[str, Any]:
    """The trace's `meta.json`, when model and dictionary are still the traced ones."""
    meta = read_json(folder / "meta.json")
    found = {"model_hash": setting.model_hash, "dictionary_hash": setting.dictionary.hash}
    for key, value in found.items():
        if meta[key] != value:
            raise UserError(
                f"task {folder.name!r} was traced with another {key.removesuffix('_hash')}: trace it again"
            )
    return meta


def with_error(traced: Traced, plan: Sequence[NodeSet], setting: Setting) -> tuple[Traced, list[NodeSet]]:
    """The features' circuit and sets with the error node in the pool, and the set of all features without it."""
    error = Node("error", setting.site.layer)
    everything = NodeSet("all-features", frozenset({error}), others=True)
    return replace(traced, pool=(*traced.pool, error)), [*plan, everything]


def with_complements(plan: Sequence[NodeSet]) -> list[NodeSet]:
    """The sets to run: the planned ones and the complements of the random ones, each once."""
    wanted = [*plan, *(s.complement(f"~{s.name}") for s in plan if s.name.startswith("random-"))]
    return list({s.key: s for s in reversed(wanted)}.values())[::-1]


def run_sets(
    setting: Setting,
    held: Sequence[HeldOut],
    kind: str,
    sets: Sequence[NodeSet],
    traced: Traced,
    progress: Progress,
) -> dict[Any, np.ndarray]:
    """m of each held-out prompt, by the key of the kept set."""
    if kind == "components":
        parts = [_run_components(setting, h, sets, traced, progress) for h in held]
    else:
        parts = [_run_features(setting, h, sets, progress, error_always=kind == "features") for h in held]
    metrics = torch.cat(parts, 1).cpu().double().numpy()
    return {s.key: row for s, row in zip(sets, metrics, strict=True)}


def _run_components(
    setting: Setting, held: HeldOut, sets: Sequence[NodeSet], traced: Traced, progress: Progress
) -> Tensor:
    means = component_means(setting.anatomy, held.reference)
    kept = [s.kept_of(traced.pool) for s in sets]
    return ablate_components(setting.anatomy, held.batch, means, kept, progress=progress)


def _run_features(
    setting: Setting, held: HeldOut, sets: Sequence[NodeSet], progress: Progress, *, error_always: bool
) -> Tensor:
    anatomy, dictionary, site = setting.anatomy, setting.dictionary, setting.site
    means = feature_means(codes_at(dictionary, held.reference, site), dictionary.d_sae)
    masks = [feature_mask(one, dictionary.d_sae).to(anatomy.device) for one in sets]
    errors = [error_always or one.keeps(Node("error", site.layer)) for one in sets]
    return ablate_features(
        anatomy,
        held.batch,
        held.clean,
        means,
        dictionary,
        masks,
        keep_error=errors,
        site=site,
        progress=progress,
    )


def feature_mask(one: NodeSet, d_sae: int) -> Bool[Tensor, " d_sae"]:
    """Which features a set keeps, of all in the dictionary."""
    mask = torch.zeros(d_sae, dtype=torch.bool)
    mask[[node.feature for node in one.nodes if node.kind == "feature"]] = True
    return ~mask if one.others else mask


def set_rows(
    plan: Sequence[NodeSet], traced: Traced, metrics: dict[Any, np.ndarray], *, n_resamples: int, seed: int
) -> pd.DataFrame:
    """One row a set; `low` and `high` bound `faithfulness_frac`. `n_nodes` counts kept nodes that were traced."""
    by_name = {s.name: metrics[s.key] for s in plan}

    def score(metric: np.ndarray) -> Estimate:
        full, empty = by_name["full"], by_name["empty"]
        return faithfulness(metric, full=full, empty=empty, n_resamples=n_resamples, seed=seed)

    rows = []
    for one in plan:
        found, other = metrics[one.key], metrics.get(one.complement().key)
        kept = score(found)
        row: dict[str, Any] = {"set": one.name, "n_nodes": len(one.kept_of(traced.pool))}
        row |= mean_estimate(found, n_resamples=n_resamples, seed=seed).as_dict("metric_logits")
        row |= {"faithfulness_frac": kept.value, "low": kept.low, "high": kept.high}
        row |= {} if other is None else score(other).as_dict("completeness_frac")
        rows.append(row | {"node_ids": sorted(node.node_id for node in one.nodes)})
    return pd.DataFrame(rows)
