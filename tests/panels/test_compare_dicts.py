"""The Python half of the comparison: lists as the browser reads them, cards, what a page ships, what is refused."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.reports.run_folder import N_FEATURES, make_run
from workbench.assets import asset_folder
from workbench.dictionaries import save_dictionary
from workbench.dictionaries.learners.topk import TopKDictionary
from workbench.errors import UserError
from workbench.panels import CompareDicts
from workbench.panels.answers import Answer, question_key

FIXTURE = asset_folder("widgets") / "compare_dicts" / "fixture.json"
NAMES = ("matched", "split", "merged", "alone_a", "alone_b")
D = 16


def write_dictionary(folder: Path, decoder: torch.Tensor, hook: str = "blocks.2.hook_resid_post") -> None:
    """A TopK dictionary with this decoder."""
    zeros = torch.zeros(len(decoder)), torch.zeros(decoder.shape[1])
    made = TopKDictionary(
        W_enc=decoder.T.contiguous(), b_enc=zeros[0], W_dec=decoder, b_dec=zeros[1], hook_name=hook, k=4
    )
    save_dictionary(made, folder)


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a feature store, a member that is partly a copy, and one of another width."""
    run = make_run(tmp_path_factory.mktemp("compare") / "demo")
    generator = torch.Generator().manual_seed(5)
    main = torch.randn(N_FEATURES, D, generator=generator)
    other = torch.cat([main[:40], main[3:4] * 2, torch.randn(39, D, generator=generator)])
    write_dictionary(run / "dictionary", main)
    write_dictionary(run / "dictionaries" / "copy", other)
    write_dictionary(
        run / "dictionaries" / "wide", torch.randn(8, 2 * D, generator=generator), "blocks.3.mlp.hook_post"
    )
    return run


def unpacked(answer: Answer) -> dict[str, list[tuple[int, int, float]]]:
    """The lists, as `unpackLists` of pairs.js reads them."""
    found, start = {}, 0
    for name in NAMES:
        n = answer.value["lists"][name]["given"]
        block = answer.buffers[0][start : start + 12 * n]
        a, b = (np.frombuffer(block[4 * n * i : 4 * n * (i + 1)], "<i4").tolist() for i in range(2))
        found[name] = list(zip(a, b, np.frombuffer(block[8 * n :], "<f4").tolist(), strict=True))
        start += 12 * n
    assert start == len(answer.buffers[0])
    return found


def test_copies_are_matched_the_double_is_split_and_the_rest_alone(two: Path):
    panel = CompareDicts.from_run(two)
    assert (panel.problem, panel.a, panel.b) == ("", "demo", "demo/copy")
    answer = panel.match(a="demo", b="demo/copy", threshold=0.95)
    assert answer.value["counts"]["matched"] == 40
    assert (answer.value["n_a"], answer.value["n_b"]) == (N_FEATURES, 80)
    listed = unpacked(answer)
    assert sorted(a for a, _, _ in listed["matched"]) == list(range(40))
    assert {(a, b) for a, b, _ in listed["split"]} == {(3, 3), (3, 40)}
    assert all(cosine < 0.95 for _, _, cosine in listed["alone_a"])
    assert answer.value["controls"][0]["matched"] == 0
    assert answer.value["shares"]["a"]["low"] < 40 / N_FEATURES < answer.value["shares"]["a"]["high"]


def test_histograms_are_shares_and_densities_count_the_features_that_fire(two: Path):
    panel = CompareDicts.from_run(two)
    made = panel.histograms(a="demo", b="demo/copy")
    for name in ("a", "b", "random directions"):
        assert sum(made[name]) == pytest.approx(1, abs=1e-4)
    density = panel.match(a="demo", b="demo/copy", threshold=0.95).value["densities"]
    assert sum(density["a"]["matched"]) == 40
    assert sum(density["a"]["unmatched"]) == N_FEATURES - 40 - 3, "three features of the store are dead"
    assert "b" not in density


def test_a_pair_has_a_card_with_a_store_and_a_note_without(two: Path):
    panel = CompareDicts.from_run(two)
    first, second = panel.pair(a="demo", b="demo/copy", first=3, second=40)
    assert first["example"]["tokens"]
    assert max(first["example"]["activations"]) == first["example"]["activations"][first["example"]["peak"]]
    assert "no feature store" in second["note"]


def test_what_cannot_be_compared_is_refused(two: Path):
    panel = CompareDicts.from_run(two)
    with pytest.raises(UserError, match=r"decoders of widths 16 and 32 cannot be compared"):
        panel.match(a="demo", b="demo/wide", threshold=0.7)
    with pytest.raises(UserError, match=r"dictionary 'demo/cop' is not here; the nearest: demo/copy"):
        panel.match(a="demo", b="demo/cop", threshold=0.7)
    with pytest.raises(UserError, match=r"threshold 0.2 must lie between"):
        panel.match(a="demo", b="demo/copy", threshold=0.2)


def test_a_run_without_a_dictionary_says_which_command_makes_one(tmp_path: Path):
    panel = CompareDicts.from_run(tmp_path)
    assert "has no dictionary/cfg.json: make it with `workbench train --run" in panel.problem


def test_dictionaries_of_another_run_are_laid_beside(two: Path, tmp_path: Path):
    write_dictionary(tmp_path / "other" / "dictionary", torch.randn(12, D))
    panel = CompareDicts.from_run(two, others=[tmp_path / "other"], b="other")
    assert [one["name"] for one in panel.dictionaries] == ["demo", "demo/copy", "demo/wide", "other"]
    assert panel.b == "other"
    assert panel.points == [], "the run's evaluation is of an older format, which the frontier cannot place"


def test_a_page_ships_every_threshold_and_cuts_the_lists(two: Path):
    panel = CompareDicts.from_run(two)
    state = panel.freeze(most_pairs=5, most_cards=2)
    keys = [key for key in state["shipped"] if key.startswith("match ")]
    assert len(keys) == 12
    asked = {"a": "demo", "b": "demo/copy", "threshold": 0.7, "most": 5}
    shipped = state["shipped"][question_key("match", asked)]
    assert shipped["value"]["lists"]["matched"]["given"] == 5
    assert shipped["value"]["lists"]["matched"]["n"] >= 40
    assert len(shipped["buffers"][0]) <= 5 * 5 * 12
    assert len([key for key in state["shipped"] if key.startswith("pair ")]) == len(
        {tuple(c) for c in state["cards"]}
    )
    assert state["most"] == 5


def test_a_report_does_without_a_dictionary_compared_with_itself(two: Path):
    assert CompareDicts.from_run(two).absent_from_reports() == ""
    alone = CompareDicts.from_run(two, a="demo", b="demo")
    assert alone.absent_from_reports().startswith("there is one dictionary, 'demo': train a second one")


def test_a_comparison_is_cancelled_and_can_be_asked_again(two: Path, monkeypatch: pytest.MonkeyPatch):
    panel, said = CompareDicts.from_run(two), []
    ended = threading.Event()

    def send(content: dict[str, Any], _buffers: Any = None) -> None:
        said.append(content)
        if "progress" in content:
            panel._hear(None, {"id": "1", "kind": "cancel"}, [])
        else:
            ended.set()

    monkeypatch.setattr(panel, "send", send)
    monkeypatch.setattr("workbench.panels.jobs.EVERY_S", 0.0)
    asked = {"a": "demo", "b": "demo/copy", "threshold": 0.95}
    panel._hear(None, {"id": "1", "kind": "match", "args": asked}, [])
    assert ended.wait(10)
    assert said[-1] == {"id": "1", "error": "stopped on your wish"}
    monkeypatch.undo()
    assert panel.match(**asked).value["counts"]["matched"] == 40


def js_fixture(two: Path) -> str:
    """What `panel.test.js` reads: lists, their binary half, and what must come out."""
    answer = CompareDicts.from_run(two).match(a="demo", b="demo/copy", threshold=0.95, most=4)
    expected: dict[str, Any] = {
        k: [[a, b, round(c, 5)] for a, b, c in v] for k, v in unpacked(answer).items()
    }
    packed = base64.b64encode(answer.buffers[0]).decode()
    return (
        json.dumps({"lists": answer.value["lists"], "packed": packed, "expected": expected}, indent=1) + "\n"
    )


def test_the_js_fixture_is_what_python_writes_today(two: Path):
    now, kept = json.loads(js_fixture(two)), json.loads(FIXTURE.read_text(encoding="utf-8"))
    assert now["lists"] == kept["lists"]
    for name, pairs in now["expected"].items():
        assert [pair[:2] for pair in pairs] == [pair[:2] for pair in kept["expected"][name]]
        np.testing.assert_allclose([p[2] for p in pairs], [p[2] for p in kept["expected"][name]], atol=1e-4)
