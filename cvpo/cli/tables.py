"""Tables of results on standard output."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cvpo.run import Result, Score


def finish(result: Result) -> int:
    """Print how a run ended; the exit status, 128 + n after signal n."""
    if result.stopped is not None:
        print(
            f"cvpo: stopped by a signal at step {result.steps}; continue with `cvpo resume {result.folder}`",
            file=sys.stderr,
        )
        return 128 + result.stopped
    print_scores(result.scores, f"{result.folder}: {result.steps} steps, {result.updates} updates")
    return 0


def print_scores(scores: Sequence[Score], title: str) -> None:
    """One line for each policy: return, and each cost beside its limit."""
    table = Table(title=title, title_justify="left")
    table.add_column("policy")
    table.add_column("episodes", justify="right")
    table.add_column("return", justify="right")
    table.add_column("length", justify="right")
    limits = scores[0].limits
    for m, limit in enumerate(limits):
        name = "cost" if len(limits) == 1 else f"cost {m}"
        table.add_column(name if limit is None else f"{name} (limit {limit:g})", justify="right")
        if limit is not None:
            table.add_column("within")
    for score in scores:
        cells = [
            score.policy,
            str(score.episodes),
            f"{score.returned:.4g} ± {score.return_std:.3g}",
            f"{score.length:.4g}",
        ]
        for cost, std, limit, within in zip(score.costs, score.cost_stds, limits, score.within, strict=True):
            cells.append(f"{cost:.4g} ± {std:.3g}")
            if limit is not None:
                cells.append("yes" if within else "no")
        table.add_row(*cells)
    console = Console()
    if not console.is_terminal:
        # A file or a pipe has no width to keep to.
        console = Console(width=200)
    console.print(table)
