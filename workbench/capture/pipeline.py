"""Reading ahead and writing behind on threads, so that the model never waits for text or disk.

The order of the work is that of the queue, so threads change when something happens, never what.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
_END = object()


def prefetched(items: Iterable[T], depth: int = 2) -> Generator[T]:
    """The same items, up to `depth` of them made ahead on a thread; its exceptions arrive in their place."""
    ready: queue.Queue[object] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: object) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(_END)
        except BaseException as error:
            put(_Raised(error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield from _until_end(ready)
    finally:
        stopped.set()
        thread.join()


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _until_end(ready: queue.Queue[object]) -> Iterator:
    while (item := ready.get()) is not _END:
        if isinstance(item, _Raised):
            raise item.error
        yield item


class Behind:
    """Runs one job at a time on a thread; a new one waits for the one before, whose error it raises."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._running: Future[object] | None = None

    def submit(self, job: Callable[[], object]) -> None:
        """Start `job` once the previous one has ended."""
        self.wait()
        self._running = self._pool.submit(job)

    def wait(self) -> None:
        """Wait for the running job and raise what it raised."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ):
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(wait=True)
