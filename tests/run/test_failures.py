"""Ends that lose nothing: full disks, environments that fail, two processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cvpo.envs.sprint import Sprint
from cvpo.errors import CheckpointError, EnvError, RunError
from cvpo.run import Result, RunFolder, configure, resume, train
from cvpo.run.folder import Lock, created
from tests.run.helpers import SMALL, Notes, copy, rows


def test_two_processes_never_write_to_one_run(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    run = copy(finished[0], tmp_path)
    lock = Lock(run)
    with pytest.raises(RunError, match="in use by another process"):
        resume(run.path)
    lock.close()
    resume(run.path)


def test_of_two_processes_that_found_a_folder_empty_one_gets_it(tmp_path: Path) -> None:
    with created(tmp_path / "run", {"seed": 1}) as run:
        before = run.config.read_text()
        with pytest.raises(RunError, match="in use by another process"), created(run.path, {"seed": 2}):
            pass
    with pytest.raises(RunError, match="exists already and is not empty"), created(run.path, {"seed": 2}):
        pass
    assert run.config.read_text() == before


@pytest.mark.parametrize("left", ["versions.json", "versions.json.partial", "config.json.partial"])
def test_a_run_that_was_killed_before_it_had_begun_can_be_begun_again(tmp_path: Path, left: str) -> None:
    (tmp_path / "lock").write_text("")
    (tmp_path / left).write_text("{")
    with created(tmp_path, {"seed": 1}) as run:
        assert '"seed": 1' in run.config.read_text() and '"python"' in run.versions.read_text()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_keeps_what_was_saved(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    folder, _ = finished
    run = tmp_path / "run"
    full = run / "checkpoints" / "step-0000000300.safetensors.partial"

    class FillsUp(Notes):
        def step(self, step: int) -> None:
            if step == 200:
                full.symlink_to("/dev/full")

    with pytest.raises(CheckpointError, match="step-0000000300.* could not be written: No space left on device"):
        train(configure(seed=3, **SMALL), run, progress=FillsUp())
    assert [step for step, _ in RunFolder(run).checkpoints().files()] == [150]
    resume(run)
    assert rows(run / "metrics.jsonl") == rows(folder.metrics)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_the_logs_is_one_clear_error(tmp_path: Path) -> None:
    run = tmp_path / "run"

    class FillsUp(Notes):
        def step(self, step: int) -> None:
            if step == 10:
                # The first update brings new columns, for which the table is written anew.
                (run / "metrics.csv.partial").symlink_to("/dev/full")

    with pytest.raises(RunError, match="metrics.csv could not be written: No space left on device"):
        train(configure(**SMALL), run, progress=FillsUp())


def test_an_environment_that_fails_keeps_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Sprint.step
    count = iter(range(10**9))

    def breaks(self: Sprint, action: Any) -> Any:
        obs, reward, *rest = step(self, action)
        return obs, float("nan") if next(count) == 1000 else reward, *rest

    monkeypatch.setattr(Sprint, "step", breaks)
    with pytest.raises(EnvError, match="reward is nan"):
        train(configure(**SMALL), tmp_path / "run")
    assert RunFolder(tmp_path / "run").checkpoints().files()
