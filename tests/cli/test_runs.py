"""``cvpo train``, ``resume``, ``eval`` and ``plot``: tables, pictures and how to go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import cvpo
from cvpo.cli import main
from cvpo.run import RunFolder
from tests.cli.helpers import SMALL


def test_train_ends_with_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--run", str(tmp_path / "run"), *SMALL]) == 0
    captured = capsys.readouterr()
    for word in ("deterministic", "stochastic", "random", "limit 25", "within", "300"):
        assert word in captured.out
    assert f"run folder {tmp_path / 'run'}" in captured.err and "evaluation return" in captured.err
    assert main(["train", "--run", str(tmp_path / "run"), *SMALL]) == 1
    assert "cvpo resume" in capsys.readouterr().err


def test_a_run_without_limits_says_that_nothing_is_constrained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--run", str(tmp_path / "free"), *SMALL, "--cost-limits"]) == 0
    assert "costs are not constrained" in capsys.readouterr().err
    assert main(["train", "--run", str(tmp_path / "bound"), *SMALL]) == 0
    assert "costs are not constrained" not in capsys.readouterr().err
    own = ["train", "--task", "tests.cli.tasks:Costly-v0", "--run", str(tmp_path / "own"), *SMALL, "--cost-limits", "5"]
    assert main(own) == 0 and "costs are not constrained" not in capsys.readouterr().err


def test_a_discrete_task_finds_its_parts(tmp_path: Path) -> None:
    line = [word for word in SMALL if not word.startswith("--policy")]
    line = [word for word in line if word != "16"] + ["--critic.hidden", "16"]
    assert main(["train", "--task", "cvpo/SprintDiscrete-v0", "--run", str(tmp_path / "run"), *line]) == 0
    assert RunFolder(tmp_path / "run").options()["policy"]["name"] == "categorical"


def test_runs_of_several_seeds_go_on_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(tmp_path / f"run-{seed}") for seed in (0, 1)]
    assert main(["train", "--run", str(tmp_path / "run"), *SMALL, "--seeds", "0", "1"]) == 0
    assert main(["resume", *runs, "--steps", "350"]) == 0
    said = capsys.readouterr().err
    assert "seed 0: step 350: evaluation" in said and "seed 1: step 350: evaluation" in said
    assert main(["resume"]) == 2 and "there is no run folder" in capsys.readouterr().err


def test_resume_goes_on(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--run", str(tmp_path / "run"), *SMALL]) == 0
    assert main(["resume", str(tmp_path / "run"), "--steps", "350"]) == 0
    assert "350 steps" in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "run"), "--steps", "100"]) == 2


def test_a_stopped_run_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cvpo.cli.train_command.train",
        lambda config, path, progress: cvpo.run.Result(folder=path, steps=7, updates=0, stopped=15),
    )
    assert main(["train", "--run", str(tmp_path / "run")]) == 143
    assert f"continue with `cvpo resume {tmp_path / 'run'}`" in capsys.readouterr().err


def test_eval_repeats_the_table_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = json.loads(RunFolder(run).result.read_text())["scores"]
    assert main(["eval", str(run)]) == 0
    table = capsys.readouterr().out
    for score in saved:
        assert f"{score['returned']:.4g} ± {score['return_std']:.3g}" in table
    assert main(["eval", str(run), "--episodes", "3", "--seed", "5"]) == 0
    assert " 3 " in capsys.readouterr().out


def test_a_video_of_an_episode(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imageio = pytest.importorskip("imageio.v3")
    assert main(["eval", str(run), "--episodes", "1", "--video", str(tmp_path / "film.gif")]) == 0
    assert "100 frames" in capsys.readouterr().out
    frames = imageio.imread(tmp_path / "film.gif", index=None)
    # Frames that are alike are stored as one that is shown longer.
    assert 1 < len(frames) <= 100 and frames.shape[1:] == (160, 160, 3)
    # The episode begins as evaluations do, in the middle of the arena: the picture is the environment's own.
    with cvpo.envs.make("cvpo/Sprint-v0", render_mode="rgb_array") as env:
        env.reset(seed=0)
        near = np.abs(frames[0].astype(int) - env.render_frame()).max(-1) < 32
    assert near.mean() > 0.97 and frames[0].std() > 5
    assert main(["eval", str(run), "--video", str(tmp_path / "film.avi")]) == 2
    assert "allowed: .gif, .mp4" in capsys.readouterr().err


def test_plot_writes_a_picture_for_each_task(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run), "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'cvpo-Sprint-v0.png'}\n"
    assert (tmp_path / "cvpo-Sprint-v0.png").read_bytes().startswith(b"\x89PNG")
