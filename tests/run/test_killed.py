"""A run that is killed and resumed is the run that was never killed: metrics but for time, parameters, everything."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cvpo.run import RunFolder
from tests.processes import python
from tests.run.helpers import SMALL, rows

OPTIONS = {
    **SMALL,
    "steps": 800,
    "warmup_steps": 80,
    "updates_per_step": 0.15,
    "buffer": {"name": "nstep", "capacity": 5000},
    "eval_every": 400,
    "checkpoint_every": 80,
}
TASKS = {
    "built-in": {"num_envs": 3, "cost_limits": [5.0], "normalise_obs": True},
    "velocity": {
        "task": "SafetyHopperVelocity-v1",
        "num_envs": 1,
        "cost_limits": [25.0],
        # Early episodes of the hopper are short; a low horizon keeps evaluation short later, too.
        "horizon": 100,
        "critic_warmup": 20,
    },
}
REAL = pytest.mark.skipif(importlib.util.find_spec("safety_gymnasium") is None, reason="needs safety-gymnasium")

#: Kills its own process while the checkpoint number ``argv[1]`` is half written.
KILLED_WHILE_WRITING = """
import os, signal, sys
count, limit = 0, int(sys.argv.pop(1))
fsync = os.fsync
def half(handle):
    global count
    path = os.readlink(f"/proc/self/fd/{handle}")
    if path.endswith(".safetensors.partial"):
        count += 1
        if count == limit:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)
os.fsync = half
from cvpo.cli import main
sys.exit(main(sys.argv[1:]))
"""


def finish(*arguments: str, status: int = 0) -> None:
    """Run Python to its end."""
    with python(*arguments) as process:
        _, errors = process.communicate(timeout=240)
    assert process.returncode == status, errors


@pytest.fixture(scope="module", params=["built-in", pytest.param("velocity", marks=REAL)])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(configuration file, folder of a run that is never stopped)."""
    folder = tmp_path_factory.mktemp(request.param)
    config = folder / "config.json"
    config.write_text(json.dumps({**OPTIONS, **TASKS[request.param]}))
    finish("-m", "cvpo", "train", "--config", str(config), "--run", str(folder / "whole"))
    return config, folder / "whole"


def test_killed_twice(reference: tuple[Path, Path], tmp_path: Path) -> None:
    """At any moment, then while a checkpoint is half written."""
    config, whole = reference
    run = tmp_path / "run"
    kill_at_any_moment(run, "train", "--config", str(config), "--run", str(run))
    assert not RunFolder(run).result.exists()
    finish("-c", KILLED_WHILE_WRITING, "1", "resume", str(run), status=-signal.SIGKILL)
    assert list((run / "checkpoints").glob("*.partial"))
    assert not RunFolder(run).result.exists()
    finish("-m", "cvpo", "resume", str(run))
    assert_same_run(run, whole)


def kill_at_any_moment(run: Path, *command: str) -> None:
    """Kill the command somewhere between its third checkpoint and the last few."""
    chance = random.SystemRandom()
    with python("-m", "cvpo", *command) as process:
        # By the pace of its checkpoints, so that a busy machine changes neither the chances nor the time left.
        seen: dict[int, float] = {}
        # Between the first two, what updates need is loaded, which is no pace.
        awaited = chance.randint(3, 5)
        while len(seen) < awaited:
            assert process.poll() is None, process.communicate()
            for step, _ in RunFolder(run).checkpoints().files():
                seen.setdefault(step, time.monotonic())
            time.sleep(0.002)
        pace = min(after - before for before, after in itertools.pairwise(seen.values()))
        delay = chance.uniform(0.0, 2.0 * pace)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    print(f"killed {delay:.4f} s after checkpoint {awaited}; pace {pace:.4f} s")


def assert_same_run(run: Path, whole: Path) -> None:
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert rows(run / name) == rows(whole / name)
    assert table(run / "metrics.csv") == table(whole / "metrics.csv")
    step, tree = RunFolder(run).checkpoints().newest()
    expected_step, expected = RunFolder(whole).checkpoints().newest()
    assert step == expected_step
    for part in ("agent", "loop"):
        assert_same_tree(tree[part], expected[part], part)
    # The comparison above would pass for runs that learned nothing.
    assert rows(run / "metrics.jsonl")[-1]["updates"] > 80


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def assert_same_tree(left: Any, right: Any, where: str) -> None:
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for name in left:
            assert_same_tree(left[name], right[name], f"{where}.{name}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same_tree(a, b, f"{where}[{i}]")
    elif isinstance(left, (torch.Tensor, np.ndarray)):
        left, right = np.asarray(left), np.asarray(right)
        assert left.dtype == right.dtype and left.shape == right.shape, where
        assert left.tobytes() == right.tobytes(), where
    else:
        assert left == right or (left != left and right != right), where
