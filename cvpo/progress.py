"""Progress of a run: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

from cvpo.extras import require

#: Seconds between lines where there is no terminal.
PERIOD = 10.0


class Progress(Protocol):
    """What a run tells: :meth:`note` for a line worth keeping, :meth:`step` after every step of the environments."""

    def start(self, step: int, total: int) -> None: ...

    def figures(self, returned: float | None, costs: Sequence[float | None], limits: Sequence[float]) -> None: ...

    def step(self, step: int) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Silent:
    """Tells nothing."""

    def start(self, step: int, total: int) -> None:
        """Nothing."""

    def figures(self, returned: float | None, costs: Sequence[float | None], limits: Sequence[float]) -> None:
        """Nothing."""

    def step(self, step: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class Lines:
    """A line every :data:`PERIOD` seconds: steps done, return, each cost and its limit, time left."""

    def __init__(self, stream: Any = None, period: float = PERIOD) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._period = period
        self._text = ""

    def start(self, step: int, total: int) -> None:
        self._first, self._total = step, total
        self._began = self._said = time.monotonic()

    def figures(self, returned: float | None, costs: Sequence[float | None], limits: Sequence[float]) -> None:
        self._text = describe(returned, costs, limits) or self._text

    def step(self, step: int) -> None:
        now = time.monotonic()
        if now - self._said < self._period:
            return
        self._said = now
        speed = (step - self._first) / (now - self._began)
        left = clock((self._total - step) / speed) if speed > 0 else "?"
        self.note(f"{step}/{self._total} steps  {self._text}  {speed:.0f} steps/s  {left} left")

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def stop(self) -> None:
        """Nothing is left open."""


class Bar:
    """A progress bar with the same figures."""

    def __init__(self, console: Any) -> None:
        from rich import progress

        self._bar = progress.Progress(
            progress.TextColumn("{task.fields[figures]}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[speed]}"),
            progress.TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
        )

    def start(self, step: int, total: int) -> None:
        self._first, self._began = step, time.monotonic()
        self._task = self._bar.add_task("", total=total, completed=step, figures="", speed="")
        self._bar.start()

    def figures(self, returned: float | None, costs: Sequence[float | None], limits: Sequence[float]) -> None:
        text = describe(returned, costs, limits)
        if text:
            self._bar.update(self._task, figures=text)

    def step(self, step: int) -> None:
        speed = (step - self._first) / max(time.monotonic() - self._began, 1e-9)
        self._bar.update(self._task, completed=step, speed=f"{speed:.0f}/s")

    def note(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        self._bar.stop()


def for_terminal() -> Progress:
    """A bar where standard error is a terminal, else lines. Raises DependencyError without ``rich``."""
    console = require("rich.console", "the command line", "train").Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines()


def describe(returned: float | None, costs: Sequence[float | None], limits: Sequence[float]) -> str:
    """``return 12.3  cost 8.1/10``; empty where there are no figures yet."""
    if returned is None:
        return ""
    pairs = [f"cost {cost:.3g}/{limit:g}" for cost, limit in zip(costs, limits, strict=True) if cost is not None]
    return "  ".join([f"return {returned:.4g}", *pairs])


def clock(seconds: float) -> str:
    """``1:02:03``."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
