"""Runs trained as one population leave what each would have left alone."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cvpo.errors import CheckpointError, ConfigError, RunError
from cvpo.run import RunFolder, configure, resume, resume_together, train, train_together
from tests.run.helpers import SMALL, Interrupting, Notes, rows

SEEDS = (3, 4)
OPTIONS: dict[str, Any] = {**SMALL, "steps": 400, "checkpoint_every": 150}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    folder = tmp_path_factory.mktemp("together")
    paths = [folder / str(seed) for seed in SEEDS]
    results = train_together(configure(seed=0, **OPTIONS), SEEDS, paths)
    assert [(each.steps, each.updates, len(each.scores)) for each in results] == [(400, 20, 3)] * 2
    return [RunFolder(path) for path in paths]


def close(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    """Whether rows agree but for rounding."""
    return [list(row) for row in ours] == [list(row) for row in theirs] and all(
        row[name] == other[name] or row[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4)
        for row, other in zip(ours, theirs, strict=True)
        for name in row
    )


def backup(together: list[RunFolder], tmp_path: Path) -> list[Path]:
    """Copies of the folders."""
    paths = [tmp_path / str(seed) for seed in SEEDS]
    for folder, path in zip(together, paths, strict=True):
        shutil.copytree(folder.path, path)
    return paths


@pytest.mark.parametrize("index", [0, 1])
def test_each_folder_is_that_of_a_run_alone(together: list[RunFolder], index: int, tmp_path: Path) -> None:
    alone = RunFolder(tmp_path / "alone")
    train(configure(seed=SEEDS[index], **OPTIONS), alone.path)
    assert together[index].options() == alone.options()
    assert close(rows(together[index].metrics), rows(alone.metrics))
    assert close(rows(together[index].evaluations), rows(alone.evaluations))
    results = [json.loads(folder.result.read_text()) for folder in (together[index], alone)]
    assert [(each["steps"], each["together"]) for each in results] == [(400, len(SEEDS)), (400, 1)]


def test_each_goes_on_alone(together: list[RunFolder], tmp_path: Path) -> None:
    alone = RunFolder(tmp_path / "alone")
    train(configure(seed=SEEDS[1], **{**OPTIONS, "steps": 500}), alone.path)
    path = backup(together, tmp_path)[1]
    resume(path, steps=500)
    ours, theirs = rows(RunFolder(path).metrics), rows(alone.metrics)
    assert ours[-1]["step"] == 500 and close(ours[-1:], theirs[-1:])


@pytest.mark.parametrize("damaged", [False, True])
def test_all_go_on_together_bit_for_bit(together: list[RunFolder], tmp_path: Path, damaged: bool) -> None:
    """From the newest checkpoint that is whole in every folder, to what they would have been without a stop."""
    paths = backup(together, tmp_path)
    for index, path in enumerate(paths):
        files = RunFolder(path).checkpoints().files()
        assert [step for step, _ in files] == [150, 300, 400]
        files[2][1].unlink()
        if damaged and index:
            files[1][1].write_bytes(files[1][1].read_bytes()[:-9])
        RunFolder(path).result.unlink()
    notes = Notes()
    results = resume_together(paths, progress=notes)
    assert any("trying the one before it" in note for note in notes.said) == damaged
    assert [(each.steps, each.updates, each.stopped) for each in results] == [(400, 20, None)] * 2
    for folder, path in zip(together, paths, strict=True):
        again = RunFolder(path)
        assert rows(again.metrics) == rows(folder.metrics) and rows(again.evaluations) == rows(folder.evaluations)
        assert json.loads(again.result.read_text()) == json.loads(folder.result.read_text())
        # The whole state: networks, moments, replay, generators, the episodes under way.
        assert files_equal(again, folder)


def files_equal(ours: RunFolder, theirs: RunFolder) -> bool:
    """Whether the newest checkpoints agree bit for bit, but for what the clock said."""
    (step, tree), (other, expected) = ours.checkpoints().newest(), theirs.checkpoints().newest()
    return step == other and all(same(tree[part], expected[part]) for part in ("agent", "loop"))


def same(ours: Any, theirs: Any) -> bool:
    """Equality of nested records of tensors and arrays."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    return bool(np.array_equal(ours, theirs, equal_nan=np.asarray(ours).dtype.kind == "f"))


def test_runs_that_cannot_go_on_together_are_told_so(together: list[RunFolder], tmp_path: Path) -> None:
    paths = backup(together, tmp_path)
    with pytest.raises(ConfigError, match="3 is given twice; allowed: every run once"):
        resume_together([*paths, f"{paths[0]}/."])
    for step, file in RunFolder(paths[0]).checkpoints().files() + RunFolder(paths[1]).checkpoints().files():
        if (step == 400) == (file.parent.parent == paths[0]):
            file.unlink()
    with pytest.raises(CheckpointError, match=r"3: \[150, 300\].*4: \[400\].*one by one"):
        resume_together(paths)
    config = json.loads(RunFolder(paths[1]).config.read_text())
    RunFolder(paths[1]).config.write_text(json.dumps(config | {"log_every": 50}))
    with pytest.raises(ConfigError, match="log_every is 100 in .*3 and 50 in .*4; allowed"):
        resume_together(paths)
    with pytest.raises(ConfigError, match="and run .* has 400 already; allowed: 400 or more"):
        resume_together([folder.path for folder in together], steps=300)


def test_without_checkpoints_all_start_again(together: list[RunFolder], tmp_path: Path) -> None:
    paths = backup(together, tmp_path)
    for path in paths:
        for _, file in RunFolder(path).checkpoints().files():
            file.unlink()
    with pytest.raises(RunError, match="4 rows of metrics, to step 400, and no checkpoint"):
        resume_together(paths)
    for path in paths:
        # As if they had been killed before the first, which is due at 150.
        run = RunFolder(path)
        run.result.unlink()
        run.metrics.write_bytes(run.metrics.read_bytes().splitlines(keepends=True)[0])
    resume_together(paths)
    for folder, path in zip(together, paths, strict=True):
        assert rows(RunFolder(path).metrics) == rows(folder.metrics)


def test_a_signal_ends_all_of_them_with_checkpoints(tmp_path: Path) -> None:
    paths, notes = [tmp_path / str(seed) for seed in SEEDS], Interrupting(220)
    results = train_together(configure(seed=0, **OPTIONS), SEEDS, paths, progress=notes)
    # The signal comes when the first run is done with step 220 and the second is not.
    assert [(each.steps, each.stopped) for each in results] == [(221, signal.SIGTERM)] * 2
    assert [RunFolder(path).checkpoints().newest()[0] for path in paths] == [221, 221]
    assert {note.split(":")[0] for note in notes.said if note.startswith("seed")} == {"seed 3", "seed 4"}


def test_what_cannot_be_used_is_named_before_there_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seeds are \[1, 1\]; allowed: one or more, all different"):
        train_together(configure(**OPTIONS), (1, 1), [tmp_path / "a", tmp_path / "b"])
    (tmp_path / "b").write_text("")
    with pytest.raises(RunError, match="b is a file"):
        train_together(configure(**OPTIONS), (1, 2), [tmp_path / "a", tmp_path / "b"])
    assert not (tmp_path / "a").exists()
