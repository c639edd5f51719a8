"""``cvpo resume``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from cvpo.cli.tables import finish
from cvpo.cli.train_command import saying_what_was_saved
from cvpo.errors import ConfigError
from cvpo.progress import for_terminal
from cvpo.run import Result, resume, resume_together


def main(argv: list[str]) -> int:
    """Go on with runs, and print the tables of their ends."""
    return tyro.cli(_resume, args=argv, prog="cvpo resume")


def _resume(
    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN [RUN ...]", help="the run folder; several go on as one population"),
    ],
    steps: Annotated[int | None, tyro.conf.arg(help="steps in total (None: those the run was made for)")] = None,
) -> int:
    """Go on with a run from its newest checkpoint, or with runs of several seeds from the newest that all of them have.

    Metrics (but for time/ columns) and parameters come out as if it had never been stopped, bit for bit, on the same
    machine with the same versions and number of threads. Beyond its own number of steps a run is not the beginning of a
    longer one: learning rates fall over all of it. A damaged checkpoint is skipped for the one before it.
    """
    if not runs:
        raise ConfigError("there is no run folder to go on with; allowed: cvpo resume RUN [RUN ...]")
    with contextlib.ExitStack() as stack:
        for run in runs:
            stack.enter_context(saying_what_was_saved(run))
        return max(finish(result) for result in _results(runs, steps))


def _results(runs: Sequence[Path], steps: int | None) -> tuple[Result, ...]:
    if len(runs) == 1:
        return (resume(runs[0], steps=steps, progress=for_terminal()),)
    return resume_together(runs, steps=steps, progress=for_terminal())
