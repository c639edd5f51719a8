"""``cvpo eval``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from cvpo.cli.tables import print_scores
from cvpo.run import review


def main(argv: list[str]) -> int:
    """Evaluate the policy of a run."""
    return tyro.cli(_eval, args=argv, prog="cvpo eval")


def _eval(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="the run folder")],
    episodes: Annotated[int | None, tyro.conf.arg(help="episodes for each policy (None: as in the run)")] = None,
    seed: Annotated[int | None, tyro.conf.arg(help="seed of the episodes (None: that of the run's own table)")] = None,
    video: Annotated[Path | None, tyro.conf.arg(help="film one episode to this file, .mp4 or .gif")] = None,
) -> int:
    """Evaluate the policy of a run at its newest checkpoint: its mode, its samples, and random actions beside them.

    With --video, one episode of the mode is filmed as well, where the task can render.
    """
    if video is not None:
        frames = review.film(run, video, seed=seed)
        print(f"{video}: {frames} frames")
    step, found = review.scores(run, episodes, seed=seed, warn=_warn)
    print_scores(found, f"{run}: step {step}")
    return 0


def _warn(message: str) -> None:
    print(f"cvpo: warning: {message}", file=sys.stderr)
