"""Progress lines name what is done, the rate and the time left."""

from __future__ import annotations

import io

import pytest

from workbench.errors import nearest
from workbench.progress import CLEAR_LINE, Progress, seconds_text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.0, "59 s"), (75.2, "1 min 15 s"), (7380.0, "2 h 03 min")]
)
def test_seconds_text(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_a_line_holds_share_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("workbench.progress.time.monotonic", lambda: clock[0])
    lines: list[str] = []
    with Progress(1000, "capturing", "tokens", write=lines.append) as progress:
        clock[0] += 5
        progress.advance(250, note="loss 1.5")
    assert lines[0] == "capturing: 250/1,000 tokens (25%), 50 tokens/s, 15 s left, loss 1.5"
    assert lines[1] == "capturing: 250 tokens in 5 s"


def test_resumed_work_does_not_count_as_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("workbench.progress.time.monotonic", lambda: clock[0])
    progress = Progress(1000, "training", "steps", done=900)
    clock[0] = 10
    progress.advance(50, note="")
    assert "5 steps/s, 10 s left" in progress.line()


class Terminal(io.StringIO):
    """Output that people look at."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_with_a_bar_is_drawn_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = [0.0], Terminal()
    monkeypatch.setattr("workbench.progress.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("sys.stdout", out)
    with Progress(1000, "capturing", "tokens") as progress:
        clock[0] = 5
        progress.advance(250)
        clock[0] = 10
        progress.advance(750)
    shown = out.getvalue().split(CLEAR_LINE)[1:]
    assert shown[0] == "█" * 6 + "░" * 18 + " capturing: 250/1,000 tokens (25%), 50 tokens/s, 15 s left"
    assert out.getvalue().count("\n") == 1
    assert shown[-1] == "█" * 24 + " capturing: 1,000 tokens in 10 s\n"


def test_nearest() -> None:
    assert nearest("captrue", ["capture", "train"]) == "the nearest: capture"
    assert nearest("zzz", ["capture", "train"]) == "known: capture, train"
    assert nearest("zzz", []) == "none is known"
