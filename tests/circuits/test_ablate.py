"""The stage `ablate`: its table, its held-out prompts, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.circuits.conftest import TASK, write_run
from workbench.circuits import AblationResult, TraceResult, ablate
from workbench.circuits.ablating import KINDS
from workbench.circuits.heldout import held_out
from workbench.circuits.setting import open_setting
from workbench.errors import UserError
from workbench.tasks import make_task

EDGE_KINDS = ("edges (resample)", "edges (position mean)", "edges (zero)")
COLUMNS = {
    "set", "protocol", "kind", "n_nodes", "metric_logits", "faithfulness_frac", "completeness_frac", "low", "high",
}  # fmt: skip


def rows_of(result: AblationResult, kind: str) -> pd.DataFrame:
    return result.table[result.table["kind"] == kind].set_index("set")


def test_every_granularity_has_every_set(ablated: AblationResult) -> None:
    stored = pd.read_parquet(ablated.path)
    assert set(stored.columns) >= COLUMNS
    assert tuple(stored["kind"].unique()) == (*KINDS, *EDGE_KINDS)
    for kind in KINDS:
        names = set(rows_of(ablated, kind).index)
        assert names >= {"traced", "complement", "full", "empty", "top-1", *(f"random-{i}" for i in range(4))}
    nodes = stored[stored["kind"].isin(KINDS)]
    assert nodes["protocol"].str.contains("mean over 24 held-out counterfactual").all()


def test_edges_are_judged_under_every_protocol(ablated: AblationResult) -> None:
    """Full and empty are ends under each protocol, and the sets are the same edges."""
    sizes = []
    for kind in EDGE_KINDS:
        rows = rows_of(ablated, kind)
        assert set(rows.index) >= {
            "traced",
            "complement",
            "full",
            "empty",
            *(f"random-{i}" for i in range(4)),
        }
        sizes.append(rows["n_nodes"].to_dict())
        assert len(rows.loc["traced", "node_ids"]) == rows.loc["traced", "n_nodes"]
    assert sizes[0] == sizes[1] == sizes[2]
    words = [rows_of(ablated, kind)["protocol"].iloc[0] for kind in EDGE_KINDS]
    assert [
        w in text for w, text in zip(("paired", "mean at that position", "zero"), words, strict=True)
    ] == [True] * 3


def test_stored_of_the_task(ablated: AblationResult) -> None:
    stored = pd.read_parquet(ablated.path)
    assert stored.attrs["task"] == TASK


def test_random_sets_have_the_size_of_the_traced_one(ablated: AblationResult) -> None:
    for kind in KINDS:
        rows = rows_of(ablated, kind)
        assert {rows.loc[f"random-{i}", "n_nodes"] for i in range(4)} == {rows.loc["traced", "n_nodes"]}
        assert (
            rows.loc["traced", "n_nodes"] + rows.loc["complement", "n_nodes"] == rows.loc["full", "n_nodes"]
        )


def test_the_whole_model_is_the_same_in_every_granularity(ablated: AblationResult) -> None:
    full = [rows_of(ablated, kind).loc["full", "metric_logits"] for kind in KINDS]
    np.testing.assert_allclose(full, full[0], rtol=0, atol=1e-6)


def test_scores_follow_from_the_metrics(ablated: AblationResult) -> None:
    """The table's ratios recomputed from its own means, and the identity completeness(C) = faithfulness(M \\ C)."""
    for kind in KINDS:
        rows = rows_of(ablated, kind)
        low, high = rows.loc["empty", "metric_logits"], rows.loc["full", "metric_logits"]
        known = rows[rows["faithfulness_frac"].notna()]
        expected = (known["metric_logits"] - low) / (high - low)
        np.testing.assert_allclose(known["faithfulness_frac"], expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_equal(
            rows.loc["traced", "completeness_frac"], rows.loc["complement", "faithfulness_frac"]
        )


def test_held_out_prompts_were_not_traced(traced: tuple[Path, TraceResult]) -> None:
    run, result = traced
    setting = open_setting(run)
    pairs = make_task(
        TASK, setting.model.tokenizer, n_pairs=result.meta["n_prompts"], seed=result.meta["seed"]
    ).pairs
    held = held_out(setting, TASK, result.meta, n_pairs=12, n_reference=24, seed=0)
    judged = {tuple(row) for h in held for row in h.batch.clean.tolist()}
    assert len(judged) == 12
    assert judged.isdisjoint(pair.clean_ids for pair in pairs)


def test_a_given_size_takes_the_largest_nodes(own_run: Path, traced: tuple[Path, TraceResult]) -> None:
    found = ablate(
        own_run, task=TASK, n_pairs=6, n_reference=6, n_random=1, size=2, sizes=(2,), n_resamples=50
    )
    for kind in KINDS:
        rows = rows_of(found, kind)
        assert list(rows.loc["traced", "node_ids"]) == list(rows.loc["top-2", "node_ids"])
    table = traced[1].nodes
    best = table[table["kind"].isin(["head", "mlp"])].nlargest(2, "patched_logits")["node_id"]
    assert set(rows_of(found, "components").loc["traced", "node_ids"]) == set(best)


def test_the_same_seed_gives_the_same_table(own_run: Path) -> None:
    options = {"n_pairs": 6, "n_reference": 8, "n_random": 2, "sizes": (1,), "n_resamples": 50}
    first, second = ablate(own_run, task=TASK, **options), ablate(own_run, task=TASK, **options)
    pd.testing.assert_frame_equal(first.table, second.table, check_exact=True)


def test_an_untraced_task_is_refused(own_run: Path) -> None:
    with pytest.raises(UserError, match="task 'ioi' is not traced in this run: trace it first"):
        ablate(own_run, task="ioi")


def test_another_dictionary_than_the_traced_is_refused(own_run: Path, model_dir: Path) -> None:
    write_run(own_run, model_dir, seed=6)
    with pytest.raises(UserError, match="was traced with another dictionary: trace it again"):
        ablate(own_run, task=TASK, n_pairs=6, n_reference=6)


def test_a_size_beyond_the_ranked_nodes_is_refused(own_run: Path) -> None:
    with pytest.raises(UserError, match=r"size 500 is not between 1 and the \d+ patched nodes"):
        ablate(own_run, task=TASK, n_pairs=6, n_reference=6, size=500)


def test_fewer_reference_than_judged_pairs_are_refused(own_run: Path) -> None:
    with pytest.raises(UserError, match="n_reference 4 is less than n_pairs 6"):
        ablate(own_run, task=TASK, n_pairs=6, n_reference=4)
