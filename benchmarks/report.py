"""Reports from the committed rows: Markdown tables and PNG plots beside them.

    python -m benchmarks.report                       # every part that has rows under benchmarks/results/
    python -m benchmarks.report --results DIRECTORY

Nothing is measured here, and nothing is in a report but what rows say.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import goals_report, solver_report, tasks_report, updates_report

RESULTS = Path(__file__).parent / "results"

#: Each part writes its files from the rows in a folder, and returns them; none where there are no rows.
PARTS: tuple[Callable[[Path], list[Path]], ...] = (
    solver_report.write,
    updates_report.write,
    goals_report.write,
    tasks_report.write,
)


def main(argv: Iterable[str] | None = None) -> None:
    """Write all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(None if argv is None else list(argv))
    for part in PARTS:
        for path in part(arguments.results):
            print(path)


if __name__ == "__main__":
    main()
