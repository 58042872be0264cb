"""Several processes: what each of them made is joined only where they divided the text alike."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch

from tests.capture.conftest import HOOKS, Capture, content
from tests.store.test_store import flip
from workbench.capture import merge_parts, open_store, repair_stores, session, verify_stores
from workbench.errors import UserError
from workbench.store import StoreWriter


@pytest.mark.parametrize(
    ("first", "second"),
    [({"shard_tokens": 256}, {"shard_tokens": 512}), ({"n_tokens": 500}, {})],
    ids=["shard_tokens", "n_tokens"],
)
def test_parts_that_divide_the_text_otherwise_are_refused(
    tmp_path: Path, run_capture: Capture, first: dict, second: dict
) -> None:
    """Joined, they would hold some rows twice and others not at all. As at the same time: neither sees the other."""
    run, more = tmp_path / "run", {"n_tokens": 2000, "hooks": HOOKS[:1]}
    run_capture(run, shards=2, part=0, **{**more, **first})
    run_capture(tmp_path / "beside", shards=2, part=1, **{**more, **second})
    shutil.copytree(tmp_path / "beside", run, dirs_exist_ok=True)
    with pytest.raises(UserError, match="its parts were captured with other n_tokens or shard_tokens"):
        run_capture(run, **more)
    with pytest.raises(UserError, match="was interrupted"):
        open_store(run, HOOKS[0])


def test_parts_one_after_the_other_may_want_more(tmp_path: Path, run_capture: Capture) -> None:
    """The second sees where the first, which wanted less, ended a shard, and goes on from there."""
    run, options = tmp_path / "run", {"hooks": HOOKS[:1]}
    run_capture(run, shards=2, part=0, n_tokens=500, **options)
    run_capture(run, shards=2, part=1, n_tokens=2000, **options)
    joined = run_capture(run, n_tokens=2000, **options)[HOOKS[0]]
    whole = run_capture(tmp_path / "whole", n_tokens=2000, **options)[HOOKS[0]]
    every = range(whole.n_rows)
    assert joined.n_rows == whole.n_rows
    torch.testing.assert_close(joined.take(every), whole.take(every), atol=1e-6, rtol=0)


def test_a_part_that_appends_leaves_a_store_that_says_it_is_unfinished(
    tmp_path: Path, run_capture: Capture
) -> None:
    """Joined by hand with a part missing, it is refused; the capture without a part fills the gap."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    for folder in (run, whole):
        run_capture(folder)
    run_capture(run, shards=2, part=1, n_tokens=2500)
    with pytest.raises(UserError, match="was interrupted"):
        open_store(run, HOOKS[0])
    missing = merge_parts(run)
    assert missing.keys() == {"rows", *HOOKS}
    assert missing["rows"]
    with pytest.raises(UserError, match="was interrupted"):
        open_store(run, HOOKS[0])
    for folder in (run, whole):
        run_capture(folder, n_tokens=2500)
    assert content(run) == content(whole)


def test_shards_of_parts_are_verified_and_repaired(tmp_path: Path, run_capture: Capture) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    run_capture(whole)
    run_capture(run, shards=2, part=1)
    path = run / "activations" / HOOKS[1] / "shard-00001.safetensors"
    flip(path, 300)
    assert [(d.column, d.shard) for d in verify_stores(run)] == [(HOOKS[1], 1)]
    repair_stores(run)
    assert verify_stores(run) == []
    run_capture(run)
    assert content(run) == content(whole)


def test_a_gap_that_was_joined_and_called_whole_is_filled(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    run_capture(whole)
    run_capture(run)
    for log in run.rglob("shards.jsonl"):
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(lines[:1] + lines[2:]))
    run_capture(run, n_tokens=300)
    assert content(run) == content(whole)


def test_ctrl_c_is_heard_while_known_shards_are_gone_past(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a long text up to where a capture goes on can take minutes; nothing stays behind it."""
    run_capture(tmp_path / "run")
    before = content(tmp_path / "run")
    monkeypatch.setattr(StoreWriter, "check_text", lambda *args: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="stopped after shard 0") as stopped:
        run_capture(tmp_path / "run", n_tokens=2500)
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith(("prefetch", "writer")) for name in names), stopped
    monkeypatch.undo()
    found = content(tmp_path / "run")
    assert {k: v for k, v in found.items() if "manifest" not in k} == {
        k: v for k, v in before.items() if "manifest" not in k
    }


def test_ctrl_c_during_the_last_write_is_heard(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shard is kept, and the program stops all the same."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_capture(whole)
    real = session.Behind.wait
    sent: list[int] = []

    def waited(behind: session.Behind) -> None:
        if not sent and len(list((run / "activations" / HOOKS[1]).glob("shard-*"))) == 3:
            sent.append(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        real(behind)

    monkeypatch.setattr(session.Behind, "wait", waited)
    with pytest.raises(SystemExit) as stopped:
        run_capture(run)
    assert stopped.value.code == 143
    monkeypatch.undo()
    run_capture(run)
    assert content(run) == content(whole)


def test_an_error_of_the_text_arrives_and_leaves_no_thread(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the place of the third shard: the first two are kept, and the same command goes on."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_capture(whole)
    real = session.RowShards.__next__

    def breaking(shards: session.RowShards) -> object:
        if shards._number == 2:
            raise UserError("the third shard of the text cannot be read")
        return real(shards)

    with monkeypatch.context() as patch:
        patch.setattr(session.RowShards, "__next__", breaking)
        with pytest.raises(UserError, match="third shard of the text") as failed:
            run_capture(run)
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate()), failed
    assert len(list((run / "activations" / HOOKS[0]).glob("shard-*"))) == 2
    run_capture(run)
    assert content(run) == content(whole)


def test_a_hook_added_after_an_append_and_repaired(tmp_path: Path, run_capture: Capture) -> None:
    """Its rows are those of the first hook, although that was captured in two goes; so are repaired ones."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    run_capture(run, hooks=HOOKS[:1])
    run_capture(run, hooks=HOOKS[:1], n_tokens=2000)
    added = run_capture(run, hooks=HOOKS[1:], n_tokens=1)[HOOKS[1]]
    both = run_capture(whole, n_tokens=2000)
    every = range(both[HOOKS[1]].n_rows)
    torch.testing.assert_close(added.take(every), both[HOOKS[1]].take(every), atol=1e-6, rtol=0)
    before = content(run)
    for column in ("rows", *HOOKS):
        for number in (3, 5):  # the short one, and one after it
            flip(run / "activations" / column / f"shard-0000{number}.safetensors", 200)
    assert len(repair_stores(run)) == 6
    assert content(run) == before
