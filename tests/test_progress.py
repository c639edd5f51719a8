"""Progress as lines and as a bar: return, cost, speed and time left."""

from __future__ import annotations

import io

import pytest

from cvpo.progress import Bar, Lines


def test_lines_tell_return_cost_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 105.0, 111.0])
    monkeypatch.setattr("cvpo.progress.time.monotonic", lambda: next(now))
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start(0, 1000)
    lines.figures(12.345, [8.0], [10.0])
    lines.step(50)
    lines.step(110)
    assert stream.getvalue() == "110/1000 steps  return 12.35  cost 8/10  10 steps/s  0:01:29 left\n"


def test_the_bar_tells_the_same() -> None:
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), force_terminal=True, width=140)
    bar = Bar(console)
    bar.start(500, 1000)
    bar.figures(12.345, [8.0, None], [10.0, 5.0])
    bar.step(600)
    bar.note("[a note]")
    bar.stop()
    text = console.file.getvalue()
    for word in ("return 12.35", "cost 8/10", "600/1000", "/s", "[a note]"):
        assert word in text
