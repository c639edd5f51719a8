"""Curves: seeds of one configuration in one band, limits drawn, labels that tell configurations apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvpo.errors import RunError
from cvpo.plots import draw, find_runs, group, plot, read_curves
from cvpo.run import RunFolder

OPTIONS = {"task": "cvpo/Sprint-v0", "cost_limits": [25.0], "estep": {"name": "newton", "max_iter": 100}}


def make_run(path: Path, returns: list[float | None], seed: int = 0, costs: float = 30.0, **options: Any) -> RunFolder:
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.config.write_text(json.dumps({**OPTIONS, "seed": seed, **options}))
    train = [{"step": 10 * i, "train/return": 0.0, "train/cost_0": 1.0, "train/cost_ratio_0": 2.0} for i in range(4)]
    evaluations = [
        {"step": 20 * i, "eval/deterministic/return": value, "eval/deterministic/cost_0": costs}
        for i, value in enumerate(returns)
    ]
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in train))
    folder.evaluations.write_text("".join(json.dumps(row) + "\n" for row in evaluations))
    return folder


def test_seeds_make_a_band_over_the_steps_they_share(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", [1, 2, 3], seed=0), make_run(tmp_path / "b", [3, 6, 5, 9], seed=1)]
    ((task, (found,)),) = group([read_curves(folder) for folder in runs]).items()
    assert task == "cvpo/Sprint-v0" and found.limits == (25.0,) and len(found.runs) == 2
    band = found.band("evaluation/return")
    assert band is not None
    for values, expected in zip(band, ([0, 20, 40], [2, 4, 4], [1, 2, 3], [3, 6, 5]), strict=True):
        np.testing.assert_array_equal(values, expected)


def test_missing_values_are_left_out(tmp_path: Path) -> None:
    curves = read_curves(make_run(tmp_path / "a", [1, None, 3]))
    assert curves.values["evaluation/return"][0].tolist() == [0, 40]
    assert set(curves.values) == {"evaluation/return", "evaluation/cost_0", "training/return", "training/cost_0"}


def test_labels_name_what_differs(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [1], estep={"name": "newton", "max_iter": 5})
    make_run(tmp_path / "b", [1], estep={"name": "slsqp"}, seed=3)
    make_run(tmp_path / "c", [1], estep={"name": "slsqp"}, seed=4, steps=9)
    make_run(tmp_path / "d", [1], task="other")
    tasks = group([read_curves(folder) for folder in find_runs([tmp_path])])
    labels = {each.label: len(each.runs) for each in tasks["cvpo/Sprint-v0"]}
    assert labels == {"estep=newton, estep.max_iter=5": 1, "estep=slsqp, estep.max_iter=None": 2}
    assert [each.label for each in tasks["other"]] == ["evaluation"]


def test_runs_whose_rates_fell_over_other_numbers_of_steps_are_no_seeds_of_one_another(tmp_path: Path) -> None:
    for name, steps, rate in (("a", 100, 0.2), ("b", 200, 0.2), ("c", 100, 1.0), ("d", 200, 1.0)):
        make_run(tmp_path / name, [1], steps=steps, final_lr=rate)
    (groups,) = group([read_curves(folder) for folder in find_runs([tmp_path])]).values()
    assert {each.label: len(each.runs) for each in groups} == {
        "final_lr=0.2, steps=100": 1,
        "final_lr=0.2, steps=200": 1,
        "final_lr=1.0, steps=None": 2,
    }


def test_the_limit_is_drawn_where_it_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    make_run(tmp_path / "a", [1, 2, 3])
    make_run(tmp_path / "b", [3, 2, 3], seed=1)
    make_run(tmp_path / "c", [4, 4, 4], cost_limits=[])
    ((task, groups),) = group([read_curves(folder) for folder in find_runs([tmp_path])]).items()
    returns, costs = draw(task, groups).axes
    dashed = [line for line in costs.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [25.0]
    assert not [line for line in returns.lines if line.get_linestyle() == "--"]
    mean = next(line for line in returns.lines if "2 runs" in str(line.get_label()))
    assert mean.get_ydata().tolist() == [2.0, 2.0, 3.0]
    assert len(returns.collections) == 1, "one band, for the two seeds"


def test_pictures_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    make_run(tmp_path / "runs" / "a", [1, 2])
    make_run(tmp_path / "runs" / "b", [1, 2], task="other")
    files = plot([tmp_path / "runs"], tmp_path / "out")
    assert [file.name for file in files] == ["cvpo-Sprint-v0.png", "other.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_what_is_no_run_is_left_out_and_one_limit_is_as_good_as_a_list(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", [1, 2], cost_limits=25.0)
    for name, content in (("b", {"architectures": ["other"]}), ("c", {"task": 5})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(content))
    found = find_runs([tmp_path])
    assert [each.path for each in found] == [run.path]
    assert group([read_curves(each) for each in found])["cvpo/Sprint-v0"][0].limits == (25.0,)
    with pytest.raises(RunError, match="holds none"):
        find_runs([tmp_path / "b"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], r"line 1, is \[1\]; allowed: an object"),
        ({"eval/deterministic/return": 1.0}, r"KeyError\('step'\); allowed: numbers, each with its step"),
        (
            {"step": 1, "eval/deterministic/return": "much"},
            "eval/deterministic/return in the logs of .*; allowed: numbers",
        ),
    ],
)
def test_rows_that_are_none_are_named(tmp_path: Path, row: Any, message: str) -> None:
    folder = make_run(tmp_path / "a", [])
    folder.evaluations.write_text(json.dumps(row) + "\n")
    with pytest.raises(RunError, match=message):
        read_curves(folder)


def test_what_cannot_be_drawn_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(RunError, match="no config.json"):
        plot([tmp_path], tmp_path / "out")
    folder = make_run(tmp_path / "a", [])
    folder.metrics.unlink()
    with pytest.raises(RunError, match="no metrics yet"):
        plot([tmp_path], tmp_path / "out")
    folder.evaluations.write_text("nonsense\n")
    with pytest.raises(RunError, match="line 1"):
        plot([tmp_path], tmp_path / "out")
