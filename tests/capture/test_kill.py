"""Nothing is lost: killed at any moment, then the same command, gives the bytes of an uninterrupted capture."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.capture.conftest import HOOKS, Capture, content
from tests.capture.killing import DyingOs, forked
from workbench.capture import open_store, session
from workbench.errors import UserError
from workbench.store.column import Column

LIMITED = {"max_norm_multiple": 1.3}


def count_calls(run: Path, run_capture: Capture, **options: object) -> int:
    """How many times a whole capture changes files."""
    counter = DyingOs(10**9)

    def work() -> None:
        counter.install()
        run_capture(run, **options)
        Path(f"{run}.calls").write_text(str(10**9 - counter.left))

    assert forked(work) == 0
    return int(Path(f"{run}.calls").read_text())


@pytest.mark.parametrize("options", [{}, LIMITED], ids=["plain", "norm limit"])
def test_killed_at_every_call_that_changes_a_file(
    tmp_path: Path, run_capture: Capture, options: dict
) -> None:
    whole = tmp_path / "whole"
    n_calls = count_calls(whole, run_capture, **options)
    assert n_calls > 30
    expected = content(whole)
    for n in sorted(random.Random(0).sample(range(1, n_calls + 1), 8)):
        run = tmp_path / f"cut{n}"

        def work(n: int = n, run: Path = run) -> None:
            DyingOs(n).install()
            run_capture(run, **options)

        assert os.WTERMSIG(forked(work)) == signal.SIGKILL
        run_capture(run, **options)
        assert content(run) == expected, f"killed at call {n} of {n_calls}"


def test_killed_at_random_times_and_again(tmp_path: Path, run_capture: Capture) -> None:
    whole, run = tmp_path / "whole", tmp_path / "cut"
    start = time.monotonic()
    run_capture(whole)
    taken, rng = time.monotonic() - start, random.Random(1)
    for _ in range(4):
        shutil.rmtree(run, ignore_errors=True)
        for _ in range(3):
            forked(lambda: run_capture(run), after_s=rng.uniform(0.2, 1.0) * taken)
        run_capture(run)
        assert content(run) == content(whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_a_signal_finishes_the_shard_in_hand(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    """The child sends itself the signal in the middle of its second shard."""
    whole, run = tmp_path / "whole", tmp_path / "cut"
    run_capture(whole)
    real = session.Session.make

    def signalled(self, shard, *args):  # type: ignore[no-untyped-def]
        signalled.calls += 1  # type: ignore[attr-defined]
        if signalled.calls == 2:  # type: ignore[attr-defined]
            os.kill(os.getpid(), number)
        return real(self, shard, *args)

    signalled.calls = 0  # type: ignore[attr-defined]

    def work() -> None:
        session.Session.make = signalled  # type: ignore[method-assign]
        run_capture(run)

    assert os.WEXITSTATUS(forked(work)) == status
    kept = {p.name for p in (run / "activations" / HOOKS[0]).glob("shard-*.safetensors")}
    assert kept == {"shard-00000.safetensors", "shard-00001.safetensors"}
    with pytest.raises(UserError, match="was interrupted: the same capture command continues it"):
        open_store(run, HOOKS[0])
    run_capture(run)
    assert content(run) == content(whole)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_what_is_needed_and_is_gone_on_from(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "cut"
    run_capture(whole)
    real, left = os.fsync, [6]

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("workbench.store.files.os.fsync", full)
        with pytest.raises(
            UserError, match=r"the disk is full: about .* kB more are needed in .* and .* are free"
        ):
            run_capture(run)
    assert not list(run.rglob("*.tmp"))
    run_capture(run)
    assert content(run) == content(whole)


def test_a_disk_that_is_full_at_the_last_file_says_so_too(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every shard is there; the manifest that says so finds no space."""
    whole, run = tmp_path / "whole", tmp_path / "cut"
    run_capture(whole)

    def full(column: Column, *, complete: bool, exhausted: bool) -> None:
        if complete:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Column, "mark", full)
        with pytest.raises(UserError, match="the disk is full: about"):
            run_capture(run)
    run_capture(run)
    assert content(run) == content(whole)


def test_a_second_writer_is_refused(tmp_path: Path, run_capture: Capture) -> None:
    from workbench.store import StoreError, writing

    run = tmp_path / "run"
    with writing(run / "activations"):
        with pytest.raises(UserError, match=f"are being written by process {os.getpid()}"):
            run_capture(run)
        with pytest.raises(UserError, match="are being written by process"):
            run_capture(run, shards=2, part=0)
    with writing(run / "activations", "0-of-2"):
        with pytest.raises(UserError, match="are being written"):
            run_capture(run, shards=2, part=0)
        with pytest.raises(StoreError, match="are being written"), writing(run / "activations"):
            pass
        run_capture(run, shards=2, part=1)


@pytest.mark.parametrize("n_parts", [2, 5])
def test_parts_together_are_one_capture(tmp_path: Path, run_capture: Capture, n_parts: int) -> None:
    """Parts in any order, one of them killed; the last call joins them and fills what is missing."""
    whole, run = tmp_path / "whole", tmp_path / "parts"
    run_capture(whole)
    for part in reversed(range(n_parts)):
        if part == 1:
            forked(lambda: run_capture(run, shards=n_parts, part=1), after_s=0.15)
            continue
        assert run_capture(run, shards=n_parts, part=part) == {}
    with pytest.raises(UserError, match="was interrupted"):
        open_store(run, HOOKS[0])
    run_capture(run, shards=n_parts)
    assert content(run) == content(whole)


def test_parts_at_the_same_time(tmp_path: Path, run_capture: Capture) -> None:
    whole, run = tmp_path / "whole", tmp_path / "parts"
    run_capture(whole)
    children = []
    for part in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run_capture(run, shards=2, part=part)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    run_capture(run, shards=2)
    assert content(run) == content(whole)
