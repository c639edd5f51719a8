"""A small run on the built-in task, and what tests read of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from cvpo.run import RunFolder

SMALL: dict[str, Any] = {
    "steps": 500,
    "warmup_steps": 200,
    "updates_per_step": 0.1,
    "batch_size": 32,
    "particles": 8,
    "policy": {"name": "diagonal", "hidden": (16, 16)},
    "critic": {"name": "mlp", "hidden": (16, 16)},
    "buffer": {"name": "uniform", "capacity": 2000},
    "log_every": 100,
    "eval_every": 200,
    "eval_episodes": 2,
    "eval_envs": 2,
    "checkpoint_every": 150,
    "tensorboard": False,
}


def rows(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in found]


def copy(folder: RunFolder, to: Path) -> RunFolder:
    shutil.copytree(folder.path, to / "copy")
    return RunFolder(to / "copy")


class Notes:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def start(self, step: int, total: int) -> None: ...

    def figures(self, *_: Any) -> None: ...

    def step(self, step: int) -> None: ...

    def note(self, text: str) -> None:
        self.said.append(text)

    def stop(self) -> None: ...


class Interrupting(Notes):
    """Sends this process a signal when a step is done with but for this: the last that a recorder does."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def step(self, step: int) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
