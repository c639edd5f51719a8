"""A run goes on from its newest whole checkpoint, as the run that was never interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest

from cvpo.errors import CheckpointError, ConfigError, RunError
from cvpo.run import Result, RunFolder, configure, resume, train
from cvpo.run.recorder import Recorder
from tests.run.helpers import SMALL, Interrupting, Notes, copy, rows


def test_a_finished_run_goes_on_to_more_steps(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configure(**{**SMALL, "steps": 300}), run)
    before = rows(run / "metrics.jsonl")
    assert resume(run).steps == 300
    assert rows(run / "metrics.jsonl") == before
    assert resume(run, steps=400).steps == 400
    assert rows(run / "metrics.jsonl")[: len(before)] == before
    assert RunFolder(run).options()["steps"] == 400
    with pytest.raises(ConfigError, match="has 400 already"):
        resume(run, steps=350)


def test_a_signal_after_everything_is_written_ends_the_run_with_a_checkpoint_too(tmp_path: Path) -> None:
    result = train(configure(seed=3, **SMALL), tmp_path / "run", progress=Interrupting(220))
    assert (result.steps, result.stopped) == (221, signal.SIGTERM)
    assert RunFolder(tmp_path / "run").checkpoints().newest()[0] == 221


def test_a_signal_ends_the_run_with_a_checkpoint(
    finished: tuple[RunFolder, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = finished
    step = Recorder.__call__

    def kill_at_237(self: Recorder, loop: Any) -> bool:
        if self.agent.steps == 237:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, loop)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Recorder, "__call__", kill_at_237)
    result = train(configure(seed=3, **SMALL), tmp_path / "run")
    assert (result.stopped, result.steps, result.scores) == (signal.SIGTERM, 237, ())
    assert signal.getsignal(signal.SIGTERM) == before
    assert [step for step, _ in RunFolder(tmp_path / "run").checkpoints().files()] == [150, 237]
    monkeypatch.undo()
    assert resume(tmp_path / "run").stopped is None
    assert rows(tmp_path / "run" / "metrics.jsonl") == rows(folder.metrics)


def test_a_damaged_checkpoint_is_passed_over(
    finished: tuple[RunFolder, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = finished
    run = copy(folder, tmp_path)
    files = run.checkpoints().files()
    os.truncate(files[-1][1], 1000)
    notes = Notes()
    resume(run.path, progress=notes)
    assert any("step-0000000500" in note and "the one before it" in note for note in notes.said)
    assert rows(run.metrics) == rows(folder.metrics)
    assert rows(run.evaluations) == rows(folder.evaluations)
    for _, path in run.checkpoints().files():
        os.truncate(path, 1000)
    with pytest.raises(CheckpointError, match="step-0000000300"):
        resume(run.path)


def test_a_run_killed_before_its_first_checkpoint_starts_again(
    finished: tuple[RunFolder, Result], tmp_path: Path
) -> None:
    folder, _ = finished
    run = copy(folder, tmp_path)
    for _, path in run.checkpoints().files():
        path.unlink()
    run.result.unlink()
    # The first is due at 150.
    run.metrics.write_bytes(run.metrics.read_bytes().splitlines(keepends=True)[0])
    notes = Notes()
    resume(run.path, progress=notes)
    assert any("no checkpoint yet" in note for note in notes.said)
    assert rows(run.metrics) == rows(folder.metrics)


def test_a_checkpoint_of_another_configuration_is_an_error(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    run = copy(finished[0], tmp_path)
    run.config.write_text(json.dumps({**run.options(), "policy": {"name": "diagonal", "hidden": [8]}}))
    with pytest.raises(CheckpointError, match="at step 500 does not fit its configuration"):
        resume(run.path)


def test_a_run_that_lost_its_checkpoints_is_not_begun_again(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    run = copy(finished[0], tmp_path)
    shutil.rmtree(run.path / "checkpoints")
    before = run.metrics.read_bytes()
    for _ in range(2):
        with pytest.raises(RunError, match=r"5 rows of metrics, to step 500, and no checkpoint to go on from; allowed"):
            resume(run.path)
        # As if it had been killed.
        run.result.unlink(missing_ok=True)
    assert run.metrics.read_bytes() == before


def test_a_run_that_cannot_go_on_is_left_as_it_was(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    run = copy(finished[0], tmp_path)
    run.metrics.unlink()
    with pytest.raises(RunError, match="rows are missing; put the whole file back"):
        resume(run.path, steps=700)
    assert run.options()["steps"] == 500


def test_another_version_is_a_warning(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    run = copy(finished[0], tmp_path)
    run.versions.write_text(json.dumps({**json.loads(run.versions.read_text()), "torch": "1.0"}))
    with pytest.warns(UserWarning, match="torch: 1.0 -> "):
        resume(run.path)


def test_an_edited_configuration_is_a_warning(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    run = copy(finished[0], tmp_path)
    run.config.write_text(json.dumps({**run.options(), "kl_epsilon": 0.05}))
    with pytest.warns(UserWarning, match="edited, and the run goes on with it: kl_epsilon: 0.1 -> 0.05"):
        resume(run.path, steps=600)
    # From the checkpoint of step 600 on that is its configuration.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resume(run.path, steps=700)


def test_what_is_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        resume(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        resume(tmp_path)
