"""The page of a comparison: one offline HTML file in the report's form, drawn from the run folder.

write_comparison(Path("runs/compare"))        -> runs/compare/comparison.html
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workbench.analyses.comparison.figures import FIGURES
from workbench.analyses.comparison.learners import known_learners
from workbench.analyses.comparison.reading import Compared, lost_to_random, read_comparison
from workbench.analyses.comparison.sites import SITES
from workbench.artifacts import atomic_file
from workbench.intervals import Estimate
from workbench.reports.charts import Chart
from workbench.reports.comparison_charts import dots_chart
from workbench.reports.comparison_headline import RESID, comparison_headline, planted_sites
from workbench.reports.comparison_instruments import instrument_charts, variational_summary
from workbench.reports.comparison_methods import methods
from workbench.reports.format import estimate_text
from workbench.reports.frontier_chart import frontier_chart
from workbench.reports.html import render_page
from workbench.reports.report import workbench_version
from workbench.reports.tables import Table, frame_table, make_table

PAGE = "comparison.html"
CONTENTS = (
    ("answer", "Answer"), ("frontier", "Frontier"), ("planted", "Planted truth"), ("model", "Model"),
    ("speed", "Speed"), ("instruments", "Instruments"), ("methods", "Methods"),
    ("left-out", "Left out"), ("how", "How it was made"),
)  # fmt: skip
PLANTED_FIGURES = ("recovered_frac", "mmcs", "support_f1", "fvu", "l0", "dead_frac", "absorption_frac",
                   "parent_recall_frac", "leak_cosine", "stability_cosine")  # fmt: skip
MODEL_FIGURES = ("fvu", "l0", "dead_frac", "ce_recovered_frac", "kl_recovered_frac", "probe1_accuracy_frac",
                 "probe5_accuracy_frac", "probe5_shuffled_frac", "stability_cosine")  # fmt: skip
SHOWN_FIGURES = ("ce_recovered_frac", "probe1_accuracy_frac", "stability_cosine")
SPEED_FIGURES = ("train_tokens_per_cpu_s", "encode_tokens_per_cpu_s")


def write_comparison(run: Path) -> Path:
    """Write `comparison.html` into the run folder of a comparison.

    Args:
        run: Run folder.

    Returns:
        The file, which opens by double-click with no network.

    Raises:
        UserError: the folder holds no comparison.
    """
    html = comparison_html(read_comparison(run))
    with atomic_file(run / PAGE) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return run / PAGE


def comparison_html(compared: Compared) -> str:
    """The page as text."""
    groups = {
        "frontier": _present(frontier_chart(compared, RESID, name) for name in ("fvu", "ce_recovered_frac")),
        "planted": _present(dots_chart(compared, site, "recovered_frac") for site in planted_sites(compared)),
        "absorbed": _present(
            dots_chart(compared, site, name)
            for site in planted_sites(compared) for name in ("absorption_frac", "parent_recall_frac")
        ),
        "model": _present(
            dots_chart(compared, site, name)
            for site in _model_sites(compared) for name in SHOWN_FIGURES
        ),
        "speed": _present(dots_chart(compared, RESID, name) for name in SPEED_FIGURES),
        "instruments": instrument_charts(compared.instruments),
    }  # fmt: skip
    context = {
        "head": comparison_headline(compared), "run_name": compared.run.name, "version": workbench_version(),
        "contents": CONTENTS, "charts": groups, "methods": methods(compared.rows),
        "tables": _tables(compared), "lost": _lost_table(compared), "left_out": _left_out(compared),
        "facts_of_run": _facts(compared), "command": _command(compared),
    }  # fmt: skip
    drawn = [chart for group in groups.values() for chart in group]
    specs = {f"chart-{chart.id}": chart.spec for chart in drawn}
    return render_page(context, charts=specs, spots=[], pools={}, template="comparison.html.j2")


def _present(charts: Iterable[Chart | None]) -> list[Chart]:
    return [chart for chart in charts if chart is not None]


def _model_sites(compared: Compared) -> list[str]:
    return [name for name in compared.sites if SITES[name].kind == "model"]


def _tables(compared: Compared) -> dict[str, list[Table]]:
    """All figures of every site, by section."""
    planted = [name for name in compared.sites if SITES[name].kind == "planted"]
    models = [name for name in compared.sites if SITES[name].kind != "planted"]
    variational = compared.instruments.variational
    return {
        "instruments": [variational_summary(variational)] if variational is not None else [],
        "planted": [site_table(compared, name, PLANTED_FIGURES) for name in planted],
        "model": [site_table(compared, name, MODEL_FIGURES) for name in models],
        "speed": [
            site_table(compared, name, SPEED_FIGURES)
            for name in (RESID, *planted[:1])
            if name in compared.sites
        ],
    }


def site_table(compared: Compared, site: str, figures: tuple[str, ...]) -> Table:
    """Every learner and its random dictionary at a site: figures with intervals over seeds."""
    summary: Any = compared.summary
    own = summary[summary["site"] == site]
    shown = [name for name in figures if own[name].notna().any()]
    rows = [
        [f"{row['learner']}, {row['set']}", int(row["k"]), *(_cell(row, name) for name in shown)]
        for row in own.to_dict("records")
    ]
    return make_table(
        f"{site}: means over seeds with 95% t intervals",
        ["learner", "k", *(FIGURES[name].title for name in shown)],
        rows,
    )


def _cell(row: dict[str, Any], name: str) -> str:
    unit = "fraction" if name.endswith("_frac") else ""
    return estimate_text(Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"]), unit)


def _lost_table(compared: Compared) -> Table:
    lost = lost_to_random(compared)
    lost["figure"] = [FIGURES[name].title for name in lost["figure"]]
    return frame_table("Where a learner does not beat its random dictionary with every seed", lost)


def _left_out(compared: Compared) -> Table:
    return frame_table("Learners without figures at some sites", compared.refused())


def _command(compared: Compared) -> str:
    return f"workbench compare --run {compared.run} --size {compared.size.name}"


def _facts(compared: Compared) -> list[tuple[str, str]]:
    """Sizes, in words."""
    size = compared.size
    learners: Any = compared.table["learner"]
    return [
        ("Learners", f"{learners.nunique()} of {len(known_learners())} with figures"),
        ("Seeds", ", ".join(str(seed) for seed in compared.record["seeds"])),
        ("Planted settings", f"{size.planted_rows:,} rows, {size.planted_steps} steps of {size.planted_batch} rows"),
        ("Model sites", f"{size.model_rows:,} rows, {size.model_steps} steps of {size.model_batch} rows"),
        ("Latents", f"as many as features in planted settings; {size.model_d_sae} in the model"),
        ("Losses", f"{size.n_blocks} held-out blocks of {size.n_ctx} tokens"),
        ("Probes", f"{size.n_texts} labelled texts, none of them in training"),
    ]  # fmt: skip
