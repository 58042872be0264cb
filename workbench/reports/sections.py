"""What each section of the report shows, as text, charts and panels: the middle between files and page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from workbench.evaluation.frontier import frontier, sweep_folders
from workbench.intervals import Estimate
from workbench.progress import seconds_text
from workbench.reports.charts import Chart, training_charts
from workbench.reports.circuit_charts import (
    effects_chart,
    faithfulness_chart,
    faithfulness_rows,
    prediction_chart,
    set_label,
    size_charts,
)
from workbench.reports.claims import Claim, Verdict
from workbench.reports.dictionary_charts import evaluation_charts, frontier_chart
from workbench.reports.edge_charts import edges_chart, edges_text
from workbench.reports.evidence import prediction_claims, verified_pairs
from workbench.reports.format import cell_text, estimate_text, number_text
from workbench.reports.headline import run_subject
from workbench.reports.read import RunData, TaskData
from workbench.reports.tables import Table, anchor, evaluation_table, flatten, make_table, mapping_table

LINKED_FEATURES = 24
MARKS = {Verdict.HOLDS: ("holds", "✓"), Verdict.FAILS: ("fails", "✗")}


@dataclass(frozen=True)
class Header:
    """Model, data, machine, time, command, hashes."""

    facts: list[tuple[str, str]]
    command: str
    stages: Table
    hashes: Table


def _short(values: Any) -> str:
    """A mapping in one line; empty values are left out, bytes become GiB."""
    if not isinstance(values, Mapping):
        return cell_text(values)
    parts = []
    for name, value in values.items():
        if name.endswith("_bytes") and value:
            parts.append(f"{name.removesuffix('_bytes')} {value / 2**30:.0f} GiB")
        elif value not in (None, "", [], {}):
            parts.append(f"{name} {cell_text(value)}")
    return ", ".join(parts)


def header_section(run: RunData) -> Header:
    """The run header, from run.yaml, record.json and the dictionary's configuration."""
    record, config = run.record, run.dictionary
    model, hook = run_subject(run)
    sizes = f"{number_text(config.get('d_sae'))} latents, k = {config.get('k', '–')}" if config else ""
    stages = record.get("stages") or {}
    seconds = [float(stage.get("seconds") or 0) for stage in stages.values()]
    facts = [
        ("Model", model),
        ("Hook", hook),
        ("Corpus", _short(run.setting("text"))),
        ("Dictionary", sizes),
        ("Tasks", ", ".join(task.name for task in run.tasks)),
        ("Seeds", _short(record.get("seeds") or run.setting("seed"))),
        ("Code", str(record.get("revision") or "")),
        ("Hardware", _short(record.get("hardware"))),
        ("Duration", seconds_text(sum(seconds)) if seconds else ""),
    ]
    commands = record.get("command") or []
    rows = [
        [name, seconds_text(float(stage.get("seconds") or 0)), cell_text(stage.get("started"))]
        for name, stage in stages.items()
    ]
    return Header(
        facts=[(name, value) for name, value in facts if value],
        command="\n".join([commands] if isinstance(commands, str) else commands),
        stages=make_table("Stages", ["stage", "duration", "started"], rows),
        hashes=mapping_table(
            "SHA-256 of inputs and artefacts", record.get("hashes") or {}, columns=("what", "hash")
        ),
    )


@dataclass(frozen=True)
class DictionarySection:
    """Evaluation and training of the dictionary."""

    text: str
    evaluation: Table
    charts: list[Chart]


def dictionary_section(run: RunData) -> DictionarySection:
    """The dictionary: what it is, how good it is against a random one, how it trained."""
    config, (_, hook) = run.dictionary, run_subject(run)
    text = ""
    if config.get("d_sae"):
        text = (
            f"A {config.get('architecture', 'sparse')} dictionary of {number_text(config['d_sae'])} latents writes the "
            f"{number_text(config.get('d_in'))} numbers of {hook or 'its hook'} as a sum of {_how_many(run)} "
            "directions per token."
        )
    charts = [*training_charts(run.metrics), *evaluation_charts(run.evaluation), *sweep_charts(run)]
    return DictionarySection(text, evaluation_table(run.evaluation), charts)


def _how_many(run: RunData) -> str:
    """How many directions make up an activation: k, or the measured mean."""
    l0 = (run.evaluation.get("trained") or {}).get("l0")
    if run.dictionary.get("k") is not None or l0 is None:
        return f"at most {number_text(run.dictionary.get('k'))}"
    return f"{number_text(round(l0, 1))} (on average)"


def sweep_charts(run: RunData) -> list[Chart]:
    """The frontier of the run's sweep, if it has one."""
    folders = sweep_folders(run.folder)
    chart = frontier_chart(frontier(folders)) if len(folders) > 1 else None
    return [] if chart is None else [chart]


@dataclass(frozen=True)
class CircuitSection:
    """One traced task."""

    title: str
    anchor: str
    text: str
    absent: str
    charts: list[Chart]
    facts: list[tuple[str, str]]
    feature_links: list[int] = field(default_factory=list)
    spot: str = ""
    edges_text: str = ""
    edges_spot: str = ""


def circuit_features(task: TaskData) -> list[int]:
    """Features in the circuit, largest effect first."""
    if task.nodes.empty:
        return []
    chosen: Any = task.nodes[(task.nodes["kind"] == "feature") & task.nodes["in_circuit"]]
    order = chosen["attributed_logits"].abs().sort_values(ascending=False, kind="stable").index
    return list(dict.fromkeys(int(feature) for feature in chosen.loc[order, "feature"]))


KIND_NAMES = {"head": "heads", "mlp": "MLPs", "feature": "features", "error": "error nodes"}


def _circuit_text(task: TaskData) -> str:
    """How many nodes of each kind are in the circuit, and what the effects are effects on."""
    nodes: Any = task.nodes[task.nodes["kind"].isin(list(KIND_NAMES))]
    groups = nodes.groupby("kind", sort=False)["in_circuit"]
    parts = [f"{int(kept.sum())} of {len(kept)} {KIND_NAMES[str(kind)]}" for kind, kept in groups]
    n_prompts = task.meta.get("n_prompts")
    over = f", means over {number_text(n_prompts)} prompt pairs" if n_prompts else ""
    metric = task.meta.get("metric", "logit difference")
    return f"In the circuit: {', '.join(parts)}. Effects are on the {metric}{over}."


def circuit_section(task: TaskData, *, spot: str, offered: set[int]) -> CircuitSection:
    """One task: the graph, the largest effects, predictions against interventions with their control."""
    charts = [] if task.nodes.empty else [effects_chart(task)]
    predicted, measured = verified_pairs(task)
    if len(predicted):
        claim = next(iter(prediction_claims(task)), None)
        charts.append(prediction_chart(task, predicted, measured, claim))
    if task.wiring is not None:
        charts.append(edges_chart(task.name, task.wiring))
    return CircuitSection(
        title=f"{task.meta['title']} ({task.name})" if task.meta.get("title") else task.name,
        anchor=anchor(task.name),
        text="" if task.nodes.empty else _circuit_text(task),
        absent=f"{task.name} was not traced (circuits/{task.name}/ is missing).",
        charts=charts,
        facts=flatten(task.meta),
        feature_links=[f for f in circuit_features(task) if f in offered][:LINKED_FEATURES],
        spot="" if task.nodes.empty else spot,
        edges_text="" if task.wiring is None else edges_text(task.wiring),
        edges_spot="" if task.wiring is None else f"edges-{spot}",
    )


@dataclass(frozen=True)
class AblationSection:
    """Faithfulness of every set of one task: a chart and a table per kind of node."""

    title: str
    charts: list[Chart]
    tables: list[Table]


ABLATION_TEXT = (
    "A set is faithful when the task still works with nothing else left intact. Faithfulness = (logit difference "
    "with only the set intact − with nothing intact) / (full model − with nothing intact): 100% is the full "
    "model, 0% is everything ablated. Intervals: 95% bootstrap over prompts."
)


def ablation_protocols(run: RunData) -> list[tuple[str, str]]:
    """The protocol of each kind of node, as the tables name it."""
    tables = [task.ablation for task in run.tasks if not task.ablation.empty]
    found = {
        (str(kind), str(text)) for t in tables for kind, text in zip(t["kind"], t["protocol"], strict=True)
    }
    return sorted(found)


def ablation_table(title: str, rows: pd.DataFrame) -> Table:
    """Every set of one ablation, with its interval."""
    columns = ["set", "nodes", "logit difference (logits)", "faithfulness [95% interval]"]
    cells = [
        [f"{set_label(r['set'])} ({r['set']})", int(r["n_nodes"]), float(r["metric_logits"]),
         estimate_text(Estimate(r["faithfulness_frac"], r["low"], r["high"]), "fraction")]
        for r in rows.to_dict("records")
    ]  # fmt: skip
    return make_table(title, columns, cells)


def ablation_section(task: TaskData) -> AblationSection:
    """The ablations of one task."""
    charts, tables = [], []
    for kind, rows in task.ablation.groupby("kind", sort=True):
        name = f"ablation-{task.name}-{anchor(str(kind))}"
        shown = faithfulness_rows(task, str(kind))
        charts.append(faithfulness_chart(shown, name=name, title=f"Share kept by sets of {kind}"))
        charts.extend(size_charts(task, str(kind)))
        tables.append(ablation_table(f"{task.name}, {kind}: every set", rows))
    return AblationSection(task.name, charts, tables)


def ablation_sections(run: RunData) -> list[AblationSection]:
    """One section per task that was ablated."""
    return [ablation_section(task) for task in run.tasks if not task.ablation.empty]


def claim_row(claim: Claim) -> dict[str, str]:
    """A claim as the cells of its row."""
    style, mark = MARKS.get(claim.verdict, ("idle", "–"))
    over = f"95% bootstrap over {claim.interval_over}" if claim.interval_over else ""
    return {
        "statement": claim.statement,
        "how": "; ".join(part for part in (claim.protocol, over, claim.status) if part),
        "measured": estimate_text(claim.measured, claim.unit),
        "control": estimate_text(claim.control, claim.unit) if claim.control else "–",
        "control_name": claim.control_name or "none",
        "verdict": claim.verdict.value,
        "style": style,
        "mark": mark,
        "section": claim.section or "claims",
    }


def appendix_tables(run: RunData) -> list[Table]:
    """Parameters, settings of the stages, versions."""
    stages = {name: stage.get("parameters") or {} for name, stage in (run.record.get("stages") or {}).items()}
    return [
        mapping_table("Parameters of the run (run.yaml)", run.parameters, columns=("parameter", "value")),
        mapping_table("Parameters of the stages", stages, columns=("parameter", "value")),
        mapping_table("Versions", run.record.get("versions") or {}, columns=("package", "version")),
        mapping_table("Dictionary settings (cfg.json)", run.dictionary, columns=("setting", "value")),
    ]
