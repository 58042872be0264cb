"""From artefacts to claims: which numbers of a run are claimed, and against which control.

| claim                                        | control                                   |
|----------------------------------------------|-------------------------------------------|
| the dictionary rebuilds the activations      | a random dictionary of equal size         |
| it keeps the model's loss                    | a random dictionary of equal size         |
| the circuit keeps the task                   | random sets of as many nodes              |
| the task needs the circuit                   | the model without random sets             |
| the model does the task                      | an untrained model of the same shape      |
| the largest features carry the task          | a random dictionary of equal size         |
| first-order effects predict interventions    | the same predictions dealt to other nodes |
| features concentrate on a token              | a random dictionary of equal size         |

The interval of a group of random sets runs from the smallest low end to the largest high end: a circuit
beats them only when it beats the luckiest one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.intervals import Estimate
from workbench.reports.claims import Claim
from workbench.reports.read import RunData, TaskData

RANDOM_DICTIONARY = "random dictionary of equal size"


def estimate(values: dict[str, Any], name: str) -> Estimate | None:
    """`name` with `name_low` and `name_high` of an evaluation, or None where it was not measured."""
    if values.get(name) is None:
        return None
    ends = (values.get(f"{name}_low"), values.get(f"{name}_high"))
    low, high = (float("nan") if end is None else float(end) for end in ends)
    return Estimate(float(values[name]), low, high)


DICTIONARY_CLAIMS = (
    (
        "fvu",
        False,
        "The dictionary leaves less of the variance unexplained than a random one",
        "variance about the mean activation",
    ),
    (
        "ce_recovered_frac",
        True,
        "Spliced into the model it recovers more of the loss that zero-ablation costs than a random one",
        "activations replaced by their reconstruction at every position",
    ),
)


def text_name(evaluation: dict[str, Any]) -> str:
    """Whether the dictionary was evaluated on text that it was not trained on, or on rows of an array."""
    if row_unit(evaluation) == "rows":
        return "rows of the training array"
    return (
        "held-out text" if (evaluation.get("text") or {}).get("held_out") else "text of the training corpus"
    )


def row_unit(evaluation: dict[str, Any]) -> str:
    """What a dictionary was evaluated on many of: tokens, or rows where there was an array and no text."""
    return str((evaluation.get("text") or {}).get("unit", "tokens"))


def dictionary_claims(evaluation: dict[str, Any]) -> list[Claim]:
    """Fidelity of the trained dictionary against a random one."""
    trained, control = evaluation.get("trained", {}), evaluation.get("random", {})
    claims = []
    for name, higher, statement, protocol in DICTIONARY_CLAIMS:
        measured = estimate(trained, name)
        if measured is not None:
            how = {
                "unit": "fraction",
                "protocol": f"{text_name(evaluation)}; {protocol}",
                "interval_over": "groups of rows" if row_unit(evaluation) == "rows" else "blocks of text",
                "higher": higher,
            }
            against = {"control": estimate(control, name), "control_name": RANDOM_DICTIONARY}
            claims.append(
                Claim(statement=statement, measured=measured, section="dictionary", **how, **against)
            )
    return claims


def random_sets(rows: Any, column: str) -> tuple[Estimate | None, int]:
    """`column` of the random sets of one ablation as one control, and how many sets there are."""
    if column not in rows.columns:
        return None, 0
    chosen = rows[rows["set"].str.startswith("random-")].dropna(subset=[column])
    if chosen.empty:
        return None, 0
    ends = ("low", "high") if column == "faithfulness_frac" else (f"{column}_low", f"{column}_high")
    low, high = float(chosen[ends[0]].min()), float(chosen[ends[1]].max())
    return Estimate(float(chosen[column].mean()), low, high), len(chosen)


def _row(rows: Any, name: str) -> Estimate | None:
    chosen = rows.loc[rows["set"] == name, ["faithfulness_frac", "low", "high"]]
    return None if chosen.empty else Estimate(*(float(value) for value in chosen.iloc[0]))


def _kind_claims(task: str, kind: str, rows: Any) -> list[Claim]:
    """Is the traced set of one kind enough, and is it needed?"""
    traced, without = _row(rows, "traced"), _row(rows, "complement")
    if traced is None:
        return []
    size = f"{int(rows.loc[rows['set'] == 'traced', 'n_nodes'].iloc[0])} {kind}"
    how = {
        "unit": "fraction",
        "protocol": str(rows["protocol"].iloc[0]),
        "interval_over": "prompts",
        "section": "ablation",
    }
    control, n = random_sets(rows, "faithfulness_frac")
    enough = f"{task}: the traced circuit ({size}) alone keeps more of the logit difference than random sets"
    against = {"control": control, "control_name": f"{n} random sets of {size}"}
    claims = [Claim(statement=enough, measured=traced, **how, **against)]
    if without is not None:
        control, n = random_sets(rows, "completeness_frac")
        needed = f"{task}: without the traced circuit ({size}) less of it remains than without random sets"
        against = {"control": control, "control_name": f"the model without a random set of {size}, {n} times"}
        claims.append(Claim(statement=needed, measured=without, higher=False, **how, **against))
    return claims


def ablation_claims(task: TaskData) -> list[Claim]:
    """Faithfulness of the traced set and of the model without it, per kind of node."""
    groups = task.ablation.groupby("kind", sort=True) if not task.ablation.empty else ()
    return [claim for kind, rows in groups for claim in _kind_claims(task.name, str(kind), rows)]


def verified_pairs(task: TaskData) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and intervened effects where both are finite; the embedding (the whole prompt) is left out."""
    if task.verification.empty:
        return np.empty(0), np.empty(0)
    rows: Any = task.verification[task.verification["node_id"] != "embed"]
    pairs = rows[["predicted_logits", "intervened_logits"]].to_numpy(dtype=np.float64)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def prediction_claims(task: TaskData) -> list[Claim]:
    """Agreement of first-order effects with interventions."""
    found = (task.meta.get("correlation") or {}).get("all") or {}
    measured = estimate(found, "pearson")
    if measured is None:
        return []
    n_nodes = found.get("n_nodes")
    claim = Claim(
        statement=f"{task.name}: predictions fit interventions better than shuffled ones (r, {n_nodes} nodes)",
        measured=measured,
        unit="r",
        control=estimate(found, "shuffled_pearson"),
        control_name="the same predictions dealt to other nodes",
        protocol="each node patched alone with its counterfactual value",
        interval_over="prompts",
        status="correlational",
        section="circuits",
    )
    return [claim]


def behaviour_claims(task: TaskData) -> list[Claim]:
    """That the model does the task, and that the dictionary's features carry it."""
    controls, joint = task.meta.get("controls") or {}, task.meta.get("dictionary_effect") or {}
    how = {
        "protocol": str(task.meta.get("protocol") or ""),
        "interval_over": "prompts",
        "section": "circuits",
    }
    solved, carried = estimate(task.meta, "clean_logits"), estimate(joint, "joint_frac")
    claims = []
    if solved is not None:
        statement = (
            f"{task.name}: the model prefers the right answer more than an untrained one (logit difference)"
        )
        control = estimate(controls, "untrained_clean_logits")
        against = {"control": control, "control_name": "an untrained model of the same shape"}
        plain = how | {"protocol": "clean prompts, no intervention"}
        claims.append(Claim(statement=statement, measured=solved, unit="logits", **plain, **against))
    if carried is not None:
        size = joint.get("n_features")
        statement = (
            f"{task.name}: the {size} largest features carry more of the effect than random directions do"
        )
        control = estimate(controls.get("random_dictionary_effect") or {}, "joint_frac")
        against = {"control": control, "control_name": RANDOM_DICTIONARY}
        claims.append(Claim(statement=statement, measured=carried, unit="fraction", **how, **against))
    return claims


def _mean_share(found: dict[str, Any]) -> Estimate | None:
    known = found.get("mean_frac") is not None
    return Estimate(found["mean_frac"], found["low_frac"], found["high_frac"]) if known else None


def feature_claims(meta: dict[str, Any]) -> list[Claim]:
    """Concentration of the features' top examples on one token (of an array: label), against a random dictionary."""
    control = meta.get("control") or {}
    measured = _mean_share(control.get("trained") or {})
    if measured is None:
        return []
    array = meta.get("model", "") is None
    word, unit = ("label", "rows") if array else ("token", "blocks of text")
    claim = Claim(
        statement=f"Top examples peak on their commonest {word} more often than those of a random dictionary",
        measured=measured,
        unit="fraction",
        control=_mean_share(control.get("random") or {}),
        control_name=RANDOM_DICTIONARY,
        protocol=f"features with {control.get('n_top')} top examples in {control.get('n_blocks')} {unit}",
        interval_over="features",
        status="correlational",
        section="features",
    )
    return [claim]


def run_claims(run: RunData) -> list[Claim]:
    """Every claim of a run, in the order of the report."""
    claims = dictionary_claims(run.evaluation)
    claims += feature_claims(run.features.meta) if run.features else []
    for task in run.tasks:
        claims += behaviour_claims(task) + prediction_claims(task) + ablation_claims(task)
    return claims
