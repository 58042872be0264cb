"""The circuit of edges in the report: what it keeps and lacks in words, estimates against exact effects in a chart."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from workbench.circuits.circuit_graph import CircuitGraph
from workbench.reports.charts import Chart, make_chart


def edges_text(graph: CircuitGraph) -> str:
    """Size, faithfulness, completeness, minimality and nulls of the circuit of edges, in words."""
    found: dict[str, Any] = graph.meta["circuit"]
    needed = (
        "every component of it is needed" if found["all_nodes_needed"] else "not every component is needed"
    )
    goal = "reaches" if found["reached"] else "does not reach"
    return (
        f"Circuit of edges: {found['n_edges']} of {graph.n_edges} edges ({found['edges_frac']:.1%}) between "
        f"{found['n_nodes']} components keep {_share(found, 'faithfulness_frac')} of the logit difference on pairs "
        f"that it was not chosen on; without them {_share(found, 'completeness_frac')} is left; {needed} (one taken "
        f"out at a time, intervals above 0). {found['random_as_good_frac']:.0%} of random circuits with as many edges "
        f"of each kind are as faithful. It {goal} the goal of {graph.meta['goal']['faithfulness_frac']:.0%} kept and "
        f"{graph.meta['goal']['completeness_frac']:.0%} left with at most {graph.meta['goal']['edges_frac']:.0%} of "
        f"the edges. {graph.meta['protocol']['description']} Drawn are its components with what it loses without them, "
        "and its edges with the exact effect of replacing one alone."
    )


def _share(found: dict[str, Any], name: str) -> str:
    low, high = found[f"{name}_low"], found[f"{name}_high"]
    return f"{found[name]:.0%} [{low:.0%}, {high:.0%}]"


def edges_chart(task: str, graph: CircuitGraph) -> Chart:
    """Scatter: estimate of an edge against the exact effect of replacing it alone, with the line of equality."""
    table = graph.edge_table().dropna(subset=["intervened"])
    shown = pd.DataFrame(
        {
            "edge": table["source"] + " to " + table["target"],
            "estimate_logits": table["weight"],
            "exact_logits": table["intervened"],
            "circuit": ["in the circuit" if kept else "outside" for kept in table["kept"]],
        }
    )
    both = shown[["estimate_logits", "exact_logits"]].to_numpy()
    ends = pd.DataFrame(
        {"x": [float(both.min()), float(both.max())], "y": [float(both.min()), float(both.max())]}
    )
    line = alt.Chart(ends).mark_line(strokeDash=[5, 4], opacity=0.6).encode(x="x:Q", y="y:Q")
    points = alt.Chart(shown).mark_point(filled=True, size=36, opacity=0.65)
    points = points.encode(
        x=alt.X("estimate_logits:Q", title="estimate, first order (logits)"),
        y=alt.Y("exact_logits:Q", title="exact effect of the edge alone (logits)"),
        color=alt.Color("circuit:N", title=None), shape=alt.Shape("circuit:N", title=None),
        tooltip=list(shown.columns),
    )  # fmt: skip
    return make_chart(
        f"edges-{task}", "Edges: estimate against exact effect", line + points, height=300,
        text=_agreement_text(task, graph, len(shown)), table=shown,
    )  # fmt: skip


def _agreement_text(task: str, graph: CircuitGraph, n: int) -> str:
    found = graph.meta["agreement"]
    return (
        f"{n} edges of {task}; the dashed line is equality. r = {found['pearson']:.2f} "
        f"[{found['pearson_low']:.2f}, {found['pearson_high']:.2f}], with shuffled edges "
        f"{found['shuffled_pearson']:.2f} [{found['shuffled_pearson_low']:.2f}, {found['shuffled_pearson_high']:.2f}]."
    )
