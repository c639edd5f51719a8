"""A run that is killed and resumed is the run that was never killed: metrics but for time, parameters, everything."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cvpo.run import RunFolder

SMALL = {
    "steps": 1200,
    "warmup_steps": 200,
    "updates_per_step": 0.25,
    "batch_size": 32,
    "particles": 8,
    "policy": {"name": "diagonal", "hidden": [16, 16]},
    "critic": {"name": "mlp", "hidden": [16, 16]},
    "buffer": {"name": "nstep", "capacity": 5000},
    "log_every": 100,
    "eval_every": 400,
    "eval_episodes": 2,
    "eval_envs": 2,
    "checkpoint_every": 130,
    "tensorboard": False,
}
TASKS = {
    "built-in": {"num_envs": 3, "cost_limits": [5.0], "normalise_obs": True},
    "velocity": {
        "task": "SafetyHopperVelocity-v1",
        "num_envs": 1,
        "cost_limits": [25.0],
        # Early episodes of the hopper are short; a low horizon keeps evaluation short later, too.
        "horizon": 100,
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


def command(*arguments: str, program: tuple[str, ...] = ("-m", "cvpo")) -> subprocess.Popen[str]:
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors
    return errors


@pytest.fixture(scope="module", params=["built-in", pytest.param("velocity", marks=REAL)])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(configuration file, folder of a run that is never stopped)."""
    folder = tmp_path_factory.mktemp(request.param)
    config = folder / "config.json"
    config.write_text(json.dumps({**SMALL, **TASKS[request.param]}))
    finish(command("train", "--config", str(config), "--run", str(folder / "whole")))
    return config, folder / "whole"


def test_killed_at_any_moment(reference: tuple[Path, Path], tmp_path: Path) -> None:
    config, whole = reference
    run = tmp_path / "run"
    process = command("train", "--config", str(config), "--run", str(run))
    while not RunFolder(run).checkpoints().files():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    delay = random.SystemRandom().uniform(0.0, 0.8)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    print(f"killed {delay:.4f} s after the first checkpoint, the newest is {RunFolder(run).checkpoints().files()[-1]}")
    finish(command("resume", str(run)))
    assert_same_run(run, whole)


def test_killed_while_a_checkpoint_is_written(reference: tuple[Path, Path], tmp_path: Path) -> None:
    config, whole = reference
    run = tmp_path / "run"
    program = ("-c", KILLED_WHILE_WRITING, "4")
    finish(command("train", "--config", str(config), "--run", str(run), program=program), -signal.SIGKILL)
    assert list((run / "checkpoints").glob("*.partial"))
    assert not (run / "result.json").exists()
    finish(command("resume", str(run)))
    assert_same_run(run, whole)


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
    assert tree["agent"]["updates"] > 100


def rows(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in found]


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
