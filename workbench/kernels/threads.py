"""A small pool of threads for compiled loops: as many as torch uses, each running torch single-threaded.

Each row or latent is computed whole by one thread, in an order of its own, so results depend neither on the
number of threads nor on how the work is cut. The caller waits without spinning. OpenMP is not used: its
workers go on spinning after a product and would take the core from the next loop.

A process that forks gets a pool of its own.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}
_here = threading.local()


def run(function: Callable[..., Any], parts: Sequence[tuple[Any, ...]]) -> None:
    """Call the function once with the arguments of each part, in any order, in several threads, without autograd.

    A part that calls `run` itself runs its parts alone. Raises an exception of a part when all have ended.
    """
    n_threads = 1 if getattr(_here, "in_pool", False) else min(torch.get_num_threads(), len(parts))
    if n_threads <= 1:
        with torch.no_grad():
            for part in parts:
                function(*part)
        return
    waiting = deque(parts)

    def work() -> None:
        while True:
            try:
                part = waiting.popleft()
            except IndexError:
                return
            function(*part)

    pool = _pool(torch.get_num_threads())
    started = [pool.submit(work) for _ in range(n_threads)]
    wait(started)
    for done in started:
        done.result()


def ranges(n: int, size: int) -> list[tuple[int, int]]:
    """[start, stop) pieces of `size` that cover 0 .. n; smaller ones, but not below 16, where threads would idle."""
    size = min(size, max(16, -(-n // torch.get_num_threads())))
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def _pool(n_threads: int) -> ThreadPoolExecutor:
    with _lock:
        if n_threads not in _pools:
            barrier = threading.Barrier(n_threads + 1)
            pool = ThreadPoolExecutor(n_threads, "kernels", _single_threaded)
            for _ in range(n_threads):
                pool.submit(barrier.wait)
            barrier.wait()
            torch.set_num_threads(n_threads)  # the workers' setting is also that of threads yet to come
            _pools[n_threads] = pool
    return _pools[n_threads]


def _single_threaded() -> None:
    """In a new thread torch takes over the process's number of threads at the first question, then keeps its own."""
    torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    _here.in_pool = True


def _forget_threads() -> None:
    """In the child of a fork no worker lives, and the lock may have been held."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_forget_threads)
