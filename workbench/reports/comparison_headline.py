"""The first screen of a comparison: the question, three sentences, the verdict, three figures with controls.

Everything is computed from the table. Each sentence names the best and the worst learner, so that it is not the best
case of many; losses are compared among learners that reached about the L0 that all were asked for.
"""

from __future__ import annotations

from typing import Any

from workbench.analyses.comparison.figures import FIGURES
from workbench.analyses.comparison.reading import Compared, lost_to_random, near_l0, over_sites
from workbench.analyses.comparison.rows import BROKEN, FAILED, HOLDS, MISSING, SHORT
from workbench.analyses.comparison.sites import RESID, SITES
from workbench.intervals import Estimate
from workbench.reports.comparison_charts import control_of
from workbench.reports.format import estimate_text, interval_text, number_text, value_text
from workbench.reports.headline import Headline, Tile

QUESTION = (
    "Which dictionary learner finds what is there, keeps the model, and does so again with another seed?"
)


def comparison_headline(compared: Compared) -> Headline:
    """The first screen; its chart is the caller's."""
    lost, learners = lost_to_random(compared), set(compared.table["learner"])
    measured = {str(name) for name in compared.summary["learner"]}
    clean = measured - set(lost["learner"])
    verdict = f"{len(clean)} of {len(measured)} learners beat their random dictionary on every figure"
    detail = _lost_text(compared) if len(lost) else ""
    seeds = ", ".join(str(seed) for seed in compared.record["seeds"])
    subtitle = (
        f"{compared.size.name} size · {len(learners)} learners · {len(compared.sites)} sites · seeds {seeds}"
    )
    sentences = (recovery_sentence(compared), model_sentence(compared), methods_sentence(compared))
    return Headline(QUESTION, subtitle, " ".join(sentences), verdict, detail, _tiles(compared), None)


def _lost_text(compared: Compared) -> str:
    sizes: Any = lost_to_random(compared).groupby("learner", sort=False).size()
    counts = sizes.sort_values(ascending=False)
    named = ", ".join(f"{name} ({n})" for name, n in counts.head(6).items())
    more = f" and {len(counts) - 6} more" if len(counts) > 6 else ""
    return f"Figures on which a learner did not beat it with every seed: {named}{more}; each is in the table below."


def planted_sites(compared: Compared) -> list[str]:
    """The planted settings that were compared, without their controls."""
    return [name for name in compared.sites if SITES[name].kind == "planted" and not SITES[name].is_control]


def recovery_sentence(compared: Compared) -> str:
    """Who finds most of the planted features, and who least."""
    sites = planted_sites(compared)
    if not sites:
        return "No planted setting was compared."
    found = over_sites(compared, "recovered_frac", sites)
    if not found:
        return f"No learner has a figure at every one of {len(sites)} planted settings yet."
    first, last = next(iter(found)), next(reversed(found))
    chance = over_sites(compared, "recovered_frac", sites, kind="random")
    among = ""
    if chance:
        most = value_text(max(one.value for one in chance.values()), "fraction")
        among = f", {most} at most for random directions"
    share = estimate_text(found[first], "fraction")
    return (
        f"Of planted features {first} recovers most ({share} over {len(sites)} settings) "
        f"and {last} least ({value_text(found[last].value, 'fraction')}){among}."
    )


def model_sentence(compared: Compared) -> str:
    """Who keeps most of the model among those of equal sparsity, and whose directions recur most."""
    if RESID not in compared.sites:
        return "No site of the model was compared."
    near = near_l0(compared, RESID)
    kept = {
        name: one for name, one in over_sites(compared, "ce_recovered_frac", [RESID]).items() if name in near
    }
    steady = over_sites(compared, "stability_cosine", [RESID])
    k = compared.k_of(RESID)
    if not kept:
        return f"No learner reached about {k} latents per row in the residual stream."
    first, last = next(iter(kept)), next(reversed(kept))
    again = ""
    if steady:
        name, cosine = next((name, number_text(one.value)) for name, one in steady.items())
        untrained = _on_control(compared, "stability_cosine", name)
        beside = f", {number_text(untrained.value)} where the model's weights are random" if untrained else ""
        again = (
            f"; {name} finds most of its directions again with another seed (matched cosine {cosine}{beside})"
        )
    return (
        f"Of the {len(kept)} learners that spend about {k} latents per row in the residual stream {first} "
        f"recovers most of the loss ({estimate_text(kept[first], 'fraction')}) and {last} least "
        f"({value_text(kept[last].value, 'fraction')}){again}."
    )


def methods_sentence(compared: Compared) -> str:
    """How the checks of the methods came out."""
    rows: Any = compared.rows
    claims = rows[~rows["verdict"].isin([MISSING, FAILED])]
    counts = claims["verdict"].value_counts()
    lacking = rows[rows["verdict"].isin([MISSING, FAILED])]["row"].nunique()
    if not len(claims):
        return "No check of a method has a figure at this size."
    without = f", and {lacking} of them have no figure" if lacking else ""
    return (
        f"Of {len(claims)} claims of {claims['row'].nunique()} methods {int(counts.get(HOLDS, 0))} hold, "
        f"{int(counts.get(SHORT, 0))} fall short as was known and {int(counts.get(BROKEN, 0))} do not hold{without}."
    )


def _tiles(compared: Compared) -> tuple[Tile, ...]:
    """The best learner on recovery, on the model's loss at equal sparsity, and on stability."""
    made = (
        _tile(compared, "recovered_frac", planted_sites(compared), "of planted features are recovered by"),
        _tile(
            compared,
            "ce_recovered_frac",
            [RESID],
            "of the loss is recovered in the residual stream by",
            equal=True,
        ),
        _tile(
            compared, "stability_cosine", [RESID], "matched cosine between seeds in the residual stream, of"
        ),
    )
    return tuple(tile for tile in made if tile is not None)


def _on_control(compared: Compared, figure: str, learner: str) -> Estimate | None:
    """A learner's figure in the residual stream of the model with random weights, where it has one."""
    return over_sites(compared, figure, [control_of(RESID)]).get(learner)


def _tile(
    compared: Compared, figure: str, sites: list[str], what: str, *, equal: bool = False
) -> Tile | None:
    found = over_sites(compared, figure, sites) if sites else {}
    near = near_l0(compared, RESID) if equal else list(found)
    best: tuple[str, Estimate] | None = next(
        ((n, e) for n, e in found.items() if n in near and e.value == e.value), None
    )
    if best is None:
        return None
    name, one = best
    unit = "fraction" if FIGURES[figure].name.endswith("_frac") else ""
    chance = over_sites(compared, figure, sites, kind="random").get(name)
    control = f"{estimate_text(chance, unit)}, its random directions" if chance else "none"
    if sites == [RESID] and (untrained := _on_control(compared, figure, name)):
        control += f"; {value_text(untrained.value, unit)}, trained where the model's weights are random"
    return Tile(value_text(one.value, unit), interval_text(one, unit), f"{what} {name}", control)
