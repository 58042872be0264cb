"""The pool: every part runs once, errors surface, callers do not disturb each other, forks start anew."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest
import torch

from workbench.kernels import threads


def test_ranges_cover_everything_once(two_threads):
    assert threads.ranges(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert threads.ranges(0, 4) == []
    with two_threads():
        assert threads.ranges(100, 128) == [(0, 50), (50, 100)]
        assert threads.ranges(20, 128) == [(0, 16), (16, 20)]


def test_every_part_runs_once_on_the_pool(two_threads):
    done, names = [], set()

    def work(part):
        done.append(part)
        names.add(threading.current_thread().name)
        assert torch.get_num_threads() == 1
        assert not torch.is_grad_enabled()

    with two_threads():
        threads.run(work, [(i,) for i in range(100)])
        assert torch.get_num_threads() == 2
    assert sorted(done) == list(range(100))
    assert threading.main_thread().name not in names


def test_the_first_error_is_raised(two_threads):
    def work(part):
        if part == 3:
            raise ValueError("part 3")

    for _ in range(3):
        with two_threads(), pytest.raises(ValueError, match="part 3"):
            threads.run(work, [(i,) for i in range(10)])
    with pytest.raises(ValueError, match="part 3"):
        threads.run(work, [(3,)])


def test_a_part_may_call_the_pool_itself(two_threads):
    done = []
    with two_threads():
        threads.run(lambda i: threads.run(lambda j: done.append((i, j)), [(0,), (1,)]), [(0,), (1,), (2,)])
    assert sorted(done) == [(i, j) for i in range(3) for j in range(2)]


def test_no_part_is_left_running_behind_an_error(two_threads):
    ended = []

    def work(part):
        if part == 0:
            raise ValueError("part 0")
        time.sleep(0.02)
        ended.append(part)

    with two_threads(), pytest.raises(ValueError, match="part 0"):
        threads.run(work, [(i,) for i in range(6)])
    assert sorted(ended) == [1, 2, 3, 4, 5]


def test_concurrent_callers(two_threads):
    totals = [0] * 8

    def call(i):
        def add(j):
            totals[i] += j

        threads.run(add, [(j,) for j in range(50)])

    with two_threads():
        callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert totals == [1225] * 8


def _in_child(queue):
    found = []
    threads.run(found.append, [(1,), (2,), (3,)])
    queue.put(sorted(found))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_its_own_pool(two_threads):
    with two_threads():
        threads.run(lambda part: None, [(1,), (2,)])
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=_in_child, args=(queue,))
        child.start()
        child.join(30)
        assert child.exitcode == 0
        assert queue.get() == [1, 2, 3]
