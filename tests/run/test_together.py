"""Runs trained as one population leave what each would have left alone."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from cvpo.errors import ConfigError, RunError
from cvpo.run import RunFolder, configure, resume, train, train_together
from tests.run.helpers import SMALL, Interrupting, rows

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


@pytest.mark.parametrize("index", [0, 1])
def test_each_folder_is_that_of_a_run_alone(together: list[RunFolder], index: int, tmp_path: Path) -> None:
    alone = RunFolder(tmp_path / "alone")
    train(configure(seed=SEEDS[index], **OPTIONS), alone.path)
    assert together[index].options() == alone.options()
    assert close(rows(together[index].metrics), rows(alone.metrics))
    assert close(rows(together[index].evaluations), rows(alone.evaluations))
    assert json.loads(together[index].result.read_text())["steps"] == 400


def test_each_goes_on_alone(together: list[RunFolder], tmp_path: Path) -> None:
    alone = RunFolder(tmp_path / "alone")
    train(configure(seed=SEEDS[1], **{**OPTIONS, "steps": 500}), alone.path)
    resume(together[1].path, steps=500)
    ours, theirs = rows(together[1].metrics), rows(alone.metrics)
    assert ours[-1]["step"] == 500 and close(ours[-1:], theirs[-1:])


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
