"""A run folder as the report reads it: every artefact that is there, and the name of every one that is not.

A report is drawn from files only, never from another stage's memory. A missing artefact is not an error (a
run may stop after training); a damaged or incomplete one is, and the error names the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from workbench.circuits.circuit_graph import CircuitGraph
from workbench.circuits.edge_ablation import FOLDER as WIRING
from workbench.circuits.graph_files import load_graph
from workbench.errors import UserError
from workbench.features.store import FeatureStore
from workbench.panels.circuit_graph import COLUMNS as NODE_COLUMNS

ABLATION_COLUMNS = ("set", "protocol", "kind", "n_nodes", "metric_logits", "faithfulness_frac", "low", "high")


@dataclass(frozen=True)
class TaskData:
    """What a run holds about one task; an empty table or dict where a stage was not run."""

    name: str
    nodes: pd.DataFrame = field(default_factory=pd.DataFrame)
    links: list[dict[str, Any]] = field(default_factory=list)
    verification: pd.DataFrame = field(default_factory=pd.DataFrame)
    meta: dict[str, Any] = field(default_factory=dict)
    ablation: pd.DataFrame = field(default_factory=pd.DataFrame)
    wiring: CircuitGraph | None = None


@dataclass(frozen=True)
class RunData:
    """Everything that a report shows, and `missing`: what it cannot show because it was not made."""

    folder: Path
    parameters: dict[str, Any]
    record: dict[str, Any]
    metrics: pd.DataFrame
    evaluation: dict[str, Any]
    dictionary: dict[str, Any]
    features: FeatureStore | None
    tasks: tuple[TaskData, ...]
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run's name: that of its folder."""
        return self.folder.resolve().name

    def setting(self, name: str) -> Any:
        """A parameter of any stage as it was run, else as run.yaml asks for it, else None."""
        ran = [stage.get("parameters") or {} for stage in (self.record.get("stages") or {}).values()]
        asked = [section for section in self.parameters.values() if isinstance(section, dict)]
        values = (found[name] for found in [*ran, self.parameters, *asked] if found.get(name) is not None)
        return next(values, None)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path.name} of {path.parent.name!r} is not valid JSON ({error}): remake that stage"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{path.name} of {path.parent.name!r} holds no JSON object: remake that stage")
    return value


def _yaml(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def _table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_parquet(path)
    absent = [name for name in columns if name not in table.columns]
    if absent:
        raise UserError(f"{path.name} of {path.parent.name!r} lacks {', '.join(absent)}: remake that stage")
    return table


def read_task(run: Path, name: str) -> TaskData:
    """The circuit and the ablations of one task."""
    folder = run / "circuits" / name
    return TaskData(
        name=name,
        nodes=_table(folder / "nodes.parquet", NODE_COLUMNS),
        links=list(_json(folder / "graph.json").get("links", [])),
        verification=_table(
            folder / "verification.parquet", ("node_id", "predicted_logits", "intervened_logits")
        ),
        meta=_json(folder / "meta.json"),
        ablation=_table(run / "ablations" / f"{name}.parquet", ABLATION_COLUMNS),
        wiring=load_graph(folder / WIRING) if (folder / WIRING).is_dir() else None,
    )


def task_names(run: Path) -> list[str]:
    """Tasks that were traced or ablated, in alphabetical order."""
    traced = {path.parent.name for path in run.glob("circuits/*/nodes.parquet")}
    return sorted(traced | {path.stem for path in run.glob("ablations/*.parquet")})


def _missing(run: Path, tasks: Sequence[TaskData]) -> tuple[str, ...]:
    wanted = ["record.json", "dictionary/metrics.parquet", "dictionary/evaluation.json", "features/meta.json"]
    absent = [name for name in wanted if not (run / name).exists()]
    absent += [] if tasks else ["circuits/<task>/", "ablations/<task>.parquet"]
    for task in tasks:
        absent += [f"circuits/{task.name}/"] if task.nodes.empty else []
        absent += [f"ablations/{task.name}.parquet"] if task.ablation.empty else []
    return tuple(absent)


def read_run(run: Path) -> RunData:
    """Read a run folder.

    Raises:
        UserError: If the folder does not exist, or an artefact in it is damaged.
    """
    if not run.is_dir():
        raise UserError(f"run {str(run)!r} is not a folder: make it with `workbench demo` or `workbench run`")
    tasks = tuple(read_task(run, name) for name in task_names(run))
    return RunData(
        folder=run,
        parameters=_yaml(run / "run.yaml"),
        record=_json(run / "record.json"),
        metrics=_table(run / "dictionary" / "metrics.parquet", ("tokens",)),
        evaluation=_json(run / "dictionary" / "evaluation.json"),
        dictionary=_json(run / "dictionary" / "cfg.json"),
        features=FeatureStore.open(run / "features") if (run / "features" / "meta.json").is_file() else None,
        tasks=tasks,
        missing=_missing(run, tasks),
    )
