"""Filters: what is left out is what was asked for, is counted by reason, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.capture.conftest import HOOKS, Capture
from workbench.capture.filters import BOS, LONG, POSITION, SPECIAL, TokenFilter, parse_positions
from workbench.capture.harvest import batches
from workbench.errors import UserError
from workbench.store import Rows


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=6),
    st.sampled_from([None, "1:", ":3", "::2", "-1", "2", "-3:-1"]),
    st.sets(st.sampled_from(["bos", "special"])),
)
def test_every_token_is_kept_or_counted(
    sequences: list[list[int]], positions: str | None, kinds: set[str]
) -> None:
    keep = TokenFilter(tuple(kinds), parse_positions(positions), None, (0,), (0, 5), ())
    tokens = np.array([t for s in sequences for t in s], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    kept, counted = keep(tokens, offsets, None)
    plain = []
    for sequence in sequences:
        chosen = range(len(sequence))[parse_positions(positions)]
        for place, token in enumerate(sequence):
            out = ("bos" in kinds and place == 0 and token == 0) or ("special" in kinds and token in (0, 5))
            plain.append(place in chosen and not out)
    assert kept.tolist() == plain
    assert int(kept.sum()) + sum(counted.values()) == len(tokens)


def test_positions_that_are_no_slice() -> None:
    for text in ("a", "1:2:0", "1,2", ""):
        with pytest.raises(UserError, match="is not a slice: give for instance"):
            parse_positions(text)


def test_token_filters_in_a_capture(tmp_path: Path, run_capture: Capture) -> None:
    every = run_capture(tmp_path / "every", leave_out=(), hooks=HOOKS[:1])[HOOKS[0]]
    some = run_capture(tmp_path / "some", leave_out=("bos", "special"), positions="::3", hooks=HOOKS[:1])[
        HOOKS[0]
    ]
    assert set(every.left_out) == set()
    assert set(some.left_out) == {BOS, SPECIAL, POSITION}
    assert some.n_rows + sum(some.left_out.values()) == sum(e["tokens"] for e in some.row_entries)
    table = some.locate(range(some.n_rows))
    assert (table["pos"] % 3 == 0).all()
    assert (table["token"] != 0).all()
    assert (every.locate([0])["pos"] == 0).all()


def test_massive_activations_are_left_out_at_all_hooks(tmp_path: Path, run_capture: Capture) -> None:
    whole = run_capture(tmp_path / "whole")
    some = run_capture(tmp_path / "some", max_norm_multiple=1.3)
    dropped = some[HOOKS[0]].left_out[LONG]
    assert 0 < dropped < whole[HOOKS[0]].n_rows / 2
    assert whole[HOOKS[0]].n_rows == some[HOOKS[0]].n_rows + dropped
    norms = {h: whole[h].take(range(whole[h].n_rows)).norm(dim=1) for h in HOOKS}
    long = torch.stack([n > 1.3 * n.median() for n in norms.values()]).any(0)
    assert abs(int(long.sum()) - dropped) <= 0.02 * len(long)  # the medians are over the first rows
    assert some[HOOKS[0]].moments.max_norm < 1.4 * float(norms[HOOKS[0]].median())
    assert some[HOOKS[0]].locate([3]).equals(some[HOOKS[1]].locate([3]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 60), st.integers(0, 999))
def test_batches_cover_each_row_once_within_the_budget(lengths: list[int], budget: int, seed: int) -> None:
    g = np.random.default_rng(seed)
    n = sum(lengths)
    rows = Rows(
        g.integers(1, 99, n).astype(np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        g.random(n) < 0.7,
        np.zeros(n, np.int32),
    )
    filled = torch.zeros(int(rows.kept.sum()), dtype=torch.int64)
    for batch in batches(rows, batch_tokens=budget, pad=0):
        assert batch.ids.numel() <= max(budget, batch.ids.shape[1])
        filled[batch.target] += batch.ids.flatten()[batch.source]
        assert batch.mask is None or torch.equal(batch.mask, batch.ids > 0)
    assert filled.tolist() == rows.tokens[rows.kept].tolist()


TURN = "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
CHATML = "{% for message in messages %}" + TURN + "{% endfor %}"


@pytest.fixture
def chat_model(tmp_path: Path, model_dir: str) -> str:
    """The tiny model with a chat template beside its tokenizer."""
    import shutil

    folder = tmp_path / "chat-model"
    shutil.copytree(model_dir, folder)
    (folder / "chat_template.jinja").write_text(CHATML)
    return str(folder)


def test_roles_of_conversations(tmp_path: Path, run_capture: Capture, chat_model: str) -> None:
    """Only the assistant's tokens get rows, and each of them says so; the conversation stays whole."""
    turns = [
        [{"role": "user", "content": f"add {i}"}, {"role": "assistant", "content": f"return {i}"}]
        for i in range(60)
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    options = {"model": chat_model, "text": str(path), "layout": "chat", "n_ctx": 64, "n_tokens": 10**5}
    whole = run_capture(tmp_path / "all", **options, hooks=HOOKS[:1], leave_out=())[HOOKS[0]]
    store = run_capture(tmp_path / "run", **options, hooks=HOOKS[:1], roles=["assistant"])[HOOKS[0]]
    table = store.locate(range(store.n_rows))
    assert set(table["role"]) == {"assistant"}
    every = whole.locate(range(whole.n_rows))
    assert {"user", "assistant"} <= set(every["role"])
    mine = every[every["role"] == "assistant"].reset_index(drop=True)
    assert mine[["pos", "token", "document"]].equals(table[["pos", "token", "document"]])
    torch.testing.assert_close(
        whole.take(mine["row"].to_numpy()), store.take(range(store.n_rows)), atol=1e-5, rtol=0
    )
    with pytest.raises(UserError, match=r"made with another kept_roles \(\['assistant'\], not \['user'\]\)"):
        run_capture(tmp_path / "run", **options, hooks=HOOKS[:1], roles=["user"])
    from workbench.models import load_model

    said = load_model(chat_model).tokenizer.decode(
        table[table["document"] == table["document"][0]]["token"].tolist()
    )
    assert said.strip().startswith("return")
