"""The benchmark of unseen episodes: sums of what followed, and values that hold where nothing was learned."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from benchmarks import unseen
from benchmarks.to_go import followed
from cvpo.run import configure, train
from tests.benchmarks.test_critics import SMALL


def test_what_followed_ends_with_its_episode() -> None:
    signals = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).reshape(5, 1, 1)
    ended = torch.tensor([False, False, True, False, True]).reshape(5, 1)
    total, whole, later = followed(signals, ended, 0.1)
    assert total[0, :, 0].tolist() == pytest.approx([1.24, 2.4, 4.0, 9.6, 16.0])
    assert whole[:, 0].tolist() == [True, False, False, False, False]
    assert later[:, 0].tolist() == [2, 2, 1, 1, 0]


def test_values_hold_in_episodes_of_environments_that_were_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(configure(**SMALL, num_envs=4, buffer={"name": "nstep", "steps": 5}), tmp_path / "run")
    monkeypatch.setattr(unseen, "UPDATES", (100, 300))
    out = tmp_path / "unseen.jsonl"
    line = [str(tmp_path / "run"), "--pieces", "0", "4", "--episodes", "3", "9", "--batch", "64", "--out", str(out)]
    unseen.main(line)
    rows = [json.loads(text) for text in out.read_text().splitlines()]
    of = [(row["pieces"], row["episodes"], row["signal"]) for row in rows]
    assert of == list(itertools.product((0, 4), (3, 9), ("reward", "cost")))
    assert rows[0]["seen_steps"] < rows[2]["seen_steps"] and rows[0]["unseen_steps"] == rows[2]["unseen_steps"] > 0
    # The same steps, seen otherwise.
    assert rows[4]["seen_steps"] == rows[0]["seen_steps"] and rows[4]["grades"] != rows[0]["grades"]
    for row in rows[2:4] + rows[6:]:
        assert [each["updates"] for each in row["grades"]] == [100, 300]
        assert row["grades"][-1]["seen"] > 0.5 and row["grades"][-1]["unseen"] > 0.3


def test_a_run_with_nothing_to_hold_out_is_refused(tmp_path: Path) -> None:
    train(configure(**{**SMALL, "steps": 700}), tmp_path / "run")
    with pytest.raises(SystemExit, match=r"1 environment\(s\).*allowed: a run with several environments"):
        unseen.main([str(tmp_path / "run"), "--out", str(tmp_path / "unseen.jsonl")])
