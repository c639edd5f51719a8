"""``cvpo plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from cvpo.plots import plot


def main(argv: list[str]) -> int:
    """Draw curves of runs."""
    return tyro.cli(_plot, args=argv, prog="cvpo plot")


def _plot(
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(help="run folders, or folders of runs")],
    output: Annotated[Path, tyro.conf.arg(help="folder for the pictures, TASK.png each")] = Path("plots"),
) -> int:
    """Draw return and cost over steps as PNG, one picture for each task, with the cost limits.

    Runs that differ in their seed alone are drawn as their mean and a band from the lowest to the highest. Solid lines
    are evaluations of the policy's mode, dotted ones the episodes of training.
    """
    for file in plot(runs, output):
        print(file)
    return 0
