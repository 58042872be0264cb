"""Activations in memory: the rows of a capture on disk, in other order; resumed exactly; two copies a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.capture.conftest import HOOKS, OPTIONS, Capture
from workbench.capture import CaptureOptions, LiveStore
from workbench.capture import live as live_room
from workbench.errors import UserError
from workbench.store import Ring

Make = Callable[..., LiveStore]


@pytest.fixture
def live(model_dir: str, text: str) -> Iterator[Make]:
    opened: list[LiveStore] = []

    def made(capacity: int = 400, **changes: object) -> LiveStore:
        options = {"model": model_dir, "text": text, "hooks": HOOKS[:1], **OPTIONS, **changes}
        opened.append(LiveStore(CaptureOptions(**options), capacity_rows=capacity))  # type: ignore[arg-type]
        return opened[-1]

    yield made
    for store in opened:
        store.__exit__()


def test_a_window_holds_the_rows_of_the_text(tmp_path: Path, run_capture: Capture, live: Make) -> None:
    stored = run_capture(tmp_path / "run", hooks=HOOKS[:1])[HOOKS[0]]
    store = live(400)
    reader = store.reader(1, seed=1)
    rows = torch.cat([next(reader) for _ in range(372)])  # 12 blocks of 31 rows
    assert reader.state()["window"] == 0
    next(reader)
    assert reader.state()["window"] == 1
    expected = stored.take(range(372))
    torch.testing.assert_close(sorted_rows(rows), sorted_rows(expected), atol=1e-5, rtol=0)
    assert not torch.allclose(rows, expected)


def sorted_rows(rows: torch.Tensor) -> torch.Tensor:
    return rows[rows[:, 0].argsort()]


@pytest.mark.parametrize("changes", [{}, {"max_norm_multiple": 1.3}, {"layout": "documents"}], ids=str)
def test_it_resumes_at_any_batch(live: Make, changes: dict) -> None:
    """Over several passes of a text that ends; a fresh store captures again what the ring held."""
    straight = live(**changes).reader(50, seed=3)
    states, batches = [], []
    for _ in range(170):
        states.append(straight.state())
        batches.append(next(straight))
    assert states[-1]["window"] > 5
    for index in (0, 1, 7, 8, 30, 99, 169):
        assert torch.equal(next(live(**changes).reader(50, **states[index])), batches[index])
    if "max_norm_multiple" not in changes:
        assert torch.equal(next(live(**changes).batches(50, seed=3, start=99)), batches[99])
    else:
        with pytest.raises(UserError, match="start 99 cannot be found without the model"):
            live(**changes).batches(50, seed=3, start=99)


def test_a_window_without_a_batch_is_passed_over(live: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is a window of 372 rows and the rest of it, which is smaller than a batch; then it begins again."""
    monkeypatch.setattr(live_room, "islice", lambda stream, first, stop: islice(stream, first, 18))
    capacity = 372
    straight, states, batches = live(capacity).reader(200, seed=3), [], []
    for _ in range(12):
        states.append(straight.state())
        batches.append(next(straight))
    starts = {state["first"] for state in states}
    assert starts == {0}
    assert states[-1]["window"] == 20
    for index in (0, 1, 5, 11):
        assert torch.equal(next(live(capacity).reader(200, **states[index])), batches[index])
        assert torch.equal(next(live(capacity).batches(200, seed=3, start=index)), batches[index])


def test_a_text_smaller_than_a_batch_is_refused(live: Make, tmp_path: Path) -> None:
    small = tmp_path / "small.txt"
    small.write_text("def add(a, b):\n    return a + b\n" * 12)
    for use in (lambda r: next(r), lambda r: r.skip(3)):
        with pytest.raises(UserError, match="batch_size 399 is larger than the rows of a window"):
            use(live(400, text=str(small)).reader(399))


def test_each_pass_is_shuffled_otherwise_and_loaded_while_the_last_is_served(
    live: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 blocks that fit: every window is the whole text."""
    monkeypatch.setattr(live_room, "islice", lambda stream, first, stop: islice(stream, first, 12))
    reader = live(372).reader(186, seed=3)
    batches = []
    for _ in range(4):
        batches.append(next(reader))
        assert reader._ring is not None
        assert reader._ring.n_free < 93  # the three blocks of a forward do not fit
    first, second = torch.cat(batches[:2]), torch.cat(batches[2:])
    torch.testing.assert_close(sorted_rows(first), sorted_rows(second), atol=1e-5, rtol=0)
    assert not torch.allclose(first, second)


class Copies(TorchDispatchMode):
    """Counts rows of width `d` that operations write."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        source = args[3] if name == "index_copy_" else out
        rows = isinstance(source, torch.Tensor) and source.ndim == 2 and source.shape[1] == self.width
        if rows and name in ("index_copy_", "index_select", "cat", "copy_", "clone", "_to_copy", "index"):
            self.rows[name] += len(source)
        return out


def test_memory_and_copies(live: Make) -> None:
    store = live(992, dtype="native")  # 32 blocks
    reader = store.reader(62, seed=0, dtype=None)
    for _ in range(16):
        next(reader)
    assert reader.nbytes <= 1.002 * 992 * store.d_model * store.dtype.itemsize
    with Copies(store.d_model) as counted:
        for _ in range(32):
            next(reader)
    served = 32 * 62
    assert counted.rows["index_select"] == served
    assert counted.rows["index_copy_"] <= 1.05 * served * 32 / 31  # the token without a row goes along
    assert sum(counted.rows.values()) <= 2.1 * served


def test_copies_are_seen() -> None:
    ring = Ring(8, 4, torch.float32)
    with Copies(4) as counted:
        ring.load(8, lambda n: torch.cat([torch.ones(n, 4), torch.ones(0, 4)]))
    assert counted.rows["cat"] == 8


def test_what_does_not_fit_is_refused(live: Make) -> None:
    with pytest.raises(UserError, match="batch_size 401 does not fit: choose 1 to 400"):
        live().reader(401)
    with pytest.raises(UserError, match="capacity_rows 50 is less than the 93 rows of one forward"):
        next(live(50).reader(10))
    with pytest.raises(UserError, match="a live store holds one hook"):
        live(hooks=HOOKS)
