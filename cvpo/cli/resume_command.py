"""``cvpo resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from cvpo.cli.tables import finish
from cvpo.cli.train_command import saying_what_was_saved
from cvpo.progress import for_terminal
from cvpo.run import resume


def main(argv: list[str]) -> int:
    """Go on with a run, and print the table of its end."""
    return tyro.cli(_resume, args=argv, prog="cvpo resume")


def _resume(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="the run folder")],
    steps: Annotated[int | None, tyro.conf.arg(help="steps in total (None: those the run was made for)")] = None,
) -> int:
    """Go on with a run from its newest checkpoint.

    Metrics (but for time/ columns) and parameters come out as if it had never been stopped, bit for bit, on the same
    machine with the same versions and number of threads. A damaged checkpoint is skipped for the one before it.
    """
    with saying_what_was_saved(run):
        return finish(resume(run, steps=steps, progress=for_terminal()))
