"""Runs: one configuration whatever way it is written, a folder with everything in it, ends that lose nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch

import cvpo
from cvpo import presets
from cvpo.envs import COST_KEYS, COST_LIMITS
from cvpo.errors import CheckpointError, ConfigError, EnvError, RunError
from cvpo.estep.newton import Newton
from cvpo.progress import Bar, Lines
from cvpo.run import Result, RunConfig, RunFolder, configure, from_options, load_config, resume, review, train
from cvpo.run.folder import Lock
from cvpo.run.measure import Interval, ratio, score
from cvpo.run.recorder import Recorder
from cvpo.statistics import Episode

TASK = "cvpo/Sprint-v0"
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


@attrs.frozen
class OwnSolver(Newton):
    """A solver of the user's own."""

    summary: ClassVar[str] = "own"
    strength: float = 1.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Result]:
    path = tmp_path_factory.mktemp("run") / "finished"
    return RunFolder(path), train(configure(seed=3, **SMALL), path)


def rows(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in found]


# ------------------------------------------------------------------------------------------------ configuration


def test_options_come_before_presets_and_presets_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    table = ((r"^mine/", {"gamma": 0.9, "steps": 77}), (r"^mine/B", {"steps": 88, "estep": "slsqp"}))
    monkeypatch.setattr(presets, "PRESETS", table)
    assert configure(task="other").steps == RunConfig().steps
    assert configure(task="mine/A").steps == 77
    config = configure(task="mine/B", gamma=0.8)
    assert (config.steps, config.agent["gamma"], type(config.agent["estep"]).__name__) == (88, 0.8, "Slsqp")
    assert configure(task="mine/B", steps=99).steps == 99


def test_every_built_in_task_has_its_documented_limits() -> None:
    for task, limits in COST_LIMITS.items():
        assert configure(task=task).agent["cost_limits"] == limits
        assert configure(task=task).cost_keys == COST_KEYS[task]
    assert configure(task="SafetyPointGoal1-v0").agent["cost_limits"] == (25.0,)
    assert configure(task="SafetyCarCircle-v0").agent["cost_limits"] == (10.0,)
    assert configure(task="SafetyCarCircle1-v0").agent["cost_limits"] == (25.0,)


def test_plain_options_make_an_equal_configuration() -> None:
    own = {"name": f"{__name__}:OwnSolver", "strength": 2.0}
    config = configure(task="x", env={"size": 3}, estep=OwnSolver(strength=2.0), fit="regression", **SMALL)
    plain = json.loads(json.dumps(config.plain()))
    assert plain["estep"].items() >= own.items()
    assert plain["warmup_steps"] == 200
    assert from_options(plain | {"estep": OwnSolver(strength=2.0)}) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepz": 3}, "no option 'stepz'; did you mean 'steps'"),
        ({"warmup": 3}, "did you mean 'warmup_steps'"),
        ({"horizn": 3}, "did you mean 'horizon'"),
        ({"estep": "newtn"}, "unknown E-step solver 'newtn'; did you mean 'newton'"),
        ({"estep": {"name": "newton", "max_itr": 3}}, "no option 'max_itr'; did you mean 'max_iter'"),
        ({"steps": 0}, "RunConfig.steps is 0; allowed: an integer >= 1"),
        ({"updates_per_step": -1}, "Schedule.updates_per_step is -1"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"env": {"seed": 1}}, "an option of the run itself"),
        ({"env": 3}, "cannot be used"),
        ({"critic": {"name": "mlp", "hidden": [0]}}, "MLPCritic.hidden"),
    ],
)
def test_what_cannot_be_used_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cost_limits": (1.0, 2.0)}, "made for 2 costs .* has 1"),
        ({"cost_limits": -1.0}, "cost_limits has -1"),
        ({"gamma": 1.0}, "gamma is 1.0"),
        ({"task": "cvpo/Sprnt-v0"}, "did you mean 'cvpo/Sprint-v0'"),
        ({"env": {"colour": 1}}, "colour"),
        ({"critic": {"name": "mlp", "reward": max}}, "critic cannot be written to config.json"),
        ({"policy": "categorical"}, "policy CategoricalPolicy does not fit"),
        ({"device": "cuda"}, "no CUDA device"),
    ],
)
def test_a_configuration_that_cannot_run_leaves_no_folder(
    tmp_path: Path, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        train(configure(**{**SMALL, **options}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------ the folder


def test_a_run_leaves_everything_behind(finished: tuple[RunFolder, Result]) -> None:
    folder, result = finished
    assert (result.steps, result.updates, result.stopped) == (500, 30, None)
    assert [each.policy for each in result.scores] == ["deterministic", "stochastic", "random"]

    metrics = rows(folder.metrics)
    assert [row["step"] for row in metrics] == [100, 200, 300, 400, 500]
    last = metrics[-1]
    assert last["episodes"] == 5
    assert last["train/length"] == 100
    assert last["train/limit_0"] == 25
    assert last["train/cost_ratio_0"] == pytest.approx(last["train/cost_0"] / 25)
    assert last["estep/ok"] + last["estep/infeasible"] + last["estep/max_iter"] == pytest.approx(1)
    expected = {"train/return", "estep/eta", "estep/lam_0", "mstep/kl/mean", "mstep/kl/cov", "critic/loss"}
    assert expected | {"calibration/predicted_0", "calibration/realised_0"} <= last.keys()
    with open(folder.table, newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["step"] for row in table] == ["100", "200", "300", "400", "500"]
    assert float(table[-1]["train/return"]) == last["train/return"]
    assert {"time/elapsed", "time/steps_per_second", "time/updates_per_second"} <= table[-1].keys()

    assert [row["step"] for row in rows(folder.evaluations)] == [200, 400, 500]
    assert rows(folder.evaluations)[-1]["eval/deterministic/return"] == result.scores[0].returned
    assert [step for step, _ in folder.checkpoints().files()] == [300, 450, 500]
    saved = json.loads(folder.result.read_text())
    assert saved["scores"][2]["policy"] == "random"
    versions = json.loads(folder.versions.read_text())
    assert versions["torch"] == torch.__version__ and versions["cvpo"] == cvpo.__version__


def test_the_written_configuration_repeats_the_run(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    folder, _ = finished
    options = folder.options()
    assert options["horizon"] == 100
    assert options["limit"]["name"] == "policy" and options["limit"]["measure"]
    again = train(from_options(options), tmp_path / "again")
    assert rows(tmp_path / "again" / "metrics.jsonl") == rows(folder.metrics)
    assert (tmp_path / "again" / "config.json").read_text() == folder.config.read_text()
    assert again.steps == 500


def test_a_seed_makes_a_difference(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    folder, _ = finished
    train(from_options({**folder.options(), "seed": 4, "steps": 200}), tmp_path / "other")
    assert rows(tmp_path / "other" / "metrics.jsonl")[0] != rows(folder.metrics)[0]


def test_thread_count_is_given_back(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    try:
        train(configure(**{**SMALL, "steps": 50}), tmp_path / "run")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_folder_that_exists_is_left_alone(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    folder, _ = finished
    with pytest.raises(RunError, match="cvpo resume"):
        train(configure(**SMALL), folder.path)
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(RunError, match="exists already and is not empty"):
        train(configure(**SMALL), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(RunError, match="is a file"):
        train(configure(**SMALL), tmp_path / "thesis.txt")


def test_without_limits_training_is_blind_to_costs_but_evaluation_is_not(tmp_path: Path) -> None:
    result = train(configure(**{**SMALL, "cost_limits": (), "steps": 250}), tmp_path / "run")
    last = rows(tmp_path / "run" / "metrics.jsonl")[-1]
    assert not any("cost" in name or "lam" in name for name in last)
    assert len(result.scores[0].costs) == 1
    assert result.scores[0].limits == (None,) and result.scores[0].within == (None,)


def test_two_costs_and_workers(tmp_path: Path) -> None:
    options = {**SMALL, "task": "cvpo/SprintTwoCosts-v0", "num_envs": 2, "steps": 300}
    train(configure(**options), tmp_path / "here")
    train(configure(**options, workers=2), tmp_path / "workers")
    found = rows(tmp_path / "here" / "metrics.jsonl")
    assert found == rows(tmp_path / "workers" / "metrics.jsonl")
    assert {"train/cost_0", "train/cost_1", "estep/lam_1", "calibration/predicted_1"} <= found[-1].keys()


def test_a_component_of_the_user_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own_parts.py"
    path.write_text(
        "import attrs\nfrom cvpo.buffers.uniform import UniformBuffer\n\n"
        "@attrs.frozen\nclass Own(UniformBuffer):\n    note: str = 'x'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = {**SMALL, "buffer": {"name": "own_parts:Own", "capacity": 300, "note": "mine"}}
    train(configure(**options), tmp_path / "run")
    config = load_config(RunFolder(tmp_path / "run"))
    assert type(config.agent["buffer"]).__name__ == "Own" and config.agent["buffer"].note == "mine"


# ------------------------------------------------------------------------------------------------ resuming


def test_a_finished_run_goes_on_to_more_steps(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configure(**{**SMALL, "steps": 300}), run)
    before = rows(run / "metrics.jsonl")
    assert resume(run).steps == 300
    assert rows(run / "metrics.jsonl") == before
    assert resume(run, steps=400).steps == 400
    assert rows(run / "metrics.jsonl")[: len(before)] == before
    assert RunFolder(run).options()["steps"] == 400
    with pytest.raises(RunError, match="has 400 steps already"):
        resume(run, steps=350)


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
    notes = Notes()
    resume(run.path, progress=notes)
    assert any("no checkpoint yet" in note for note in notes.said)
    assert rows(run.metrics) == rows(folder.metrics)


def test_a_checkpoint_of_another_configuration_is_an_error(
    finished: tuple[RunFolder, Result], tmp_path: Path
) -> None:
    run = copy(finished[0], tmp_path)
    run.config.write_text(json.dumps({**run.options(), "policy": {"name": "diagonal", "hidden": [8]}}))
    with pytest.raises(CheckpointError, match="at step 500 does not fit its configuration"):
        resume(run.path)


def test_another_version_is_a_warning(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    run = copy(finished[0], tmp_path)
    run.versions.write_text(json.dumps({**json.loads(run.versions.read_text()), "torch": "1.0"}))
    with pytest.warns(UserWarning, match="torch: 1.0 -> "):
        resume(run.path)


def test_what_is_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        resume(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        resume(tmp_path)


def test_two_processes_never_write_to_one_run(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    run = copy(finished[0], tmp_path)
    lock = Lock(run)
    with pytest.raises(RunError, match="in use by another process"):
        resume(run.path)
    lock.close()
    resume(run.path)


# ------------------------------------------------------------------------------------------------ failures


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
                (run / "metrics.csv").unlink()
                (run / "metrics.csv").symlink_to("/dev/full")
                (run / "metrics.csv.partial").symlink_to("/dev/full")

    with pytest.raises(RunError, match="metrics.csv could not be written: No space left on device"):
        train(configure(**SMALL), run, progress=FillsUp())


def test_an_environment_that_fails_keeps_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cvpo.envs.sprint import Sprint

    step = Sprint.step
    count = iter(range(10**9))

    def breaks(self: Sprint, action: Any) -> Any:
        obs, reward, *rest = step(self, action)
        return obs, float("nan") if next(count) == 1000 else reward, *rest

    monkeypatch.setattr(Sprint, "step", breaks)
    with pytest.raises(EnvError, match="reward is nan"):
        train(configure(**SMALL), tmp_path / "run")
    assert RunFolder(tmp_path / "run").checkpoints().files()


# ------------------------------------------------------------------------------------------------ progress


def test_lines_tell_return_cost_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 105.0, 111.0])
    monkeypatch.setattr("cvpo.progress.time.monotonic", lambda: next(now))
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start(0, 1000)
    lines.figures(12.345, [8.0], [10.0])
    lines.step(50)
    lines.step(110)
    assert stream.getvalue() == "110/1000 steps  return 12.35  cost 8/10  10 steps/s  0:01:29 left\n"


def test_the_bar_tells_the_same() -> None:
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), force_terminal=True, width=140)
    bar = Bar(console)
    bar.start(500, 1000)
    bar.figures(12.345, [8.0, None], [10.0, 5.0])
    bar.step(600)
    bar.note("[a note]")
    bar.stop()
    text = console.file.getvalue()
    for word in ("return 12.35", "cost 8/10", "600/1000", "/s", "[a note]"):
        assert word in text


# ------------------------------------------------------------------------------------------------ measures


def test_an_interval_is_the_mean_of_its_episodes() -> None:
    agent = cvpo.make_agent(*spaces(), cost_limits=(4.0, 0.0), horizon=10)
    interval = Interval(agent.config)
    empty = interval.take()
    assert empty["train/return"] is None and empty["train/limit_0"] == 4.0
    for total in ([1.0, 2.0, 0.0], [3.0, 8.0, 1.0]):
        episode = Episode(np.array(total), np.array(total) / 2, 10, np.zeros(3), np.zeros(2))
        interval.add(episode, np.array([7.0, 9.0]))
    saved = Interval(agent.config)
    saved.load_state_dict(interval.state_dict())
    row = interval.take()
    assert row == saved.take()
    assert (row["train/return"], row["train/length"]) == (2.0, 10.0)
    assert (row["train/cost_0"], row["train/cost_ratio_0"]) == (5.0, 1.25)
    assert (row["train/cost_1"], row["train/cost_ratio_1"]) == (0.5, float("inf"))
    assert (row["calibration/predicted_1"], row["calibration/realised_0"]) == (9.0, 2.5)
    assert interval.take() == empty


def test_a_ratio_to_no_cost_at_all() -> None:
    assert (ratio(0.0, 0.0), ratio(0.1, 0.0), ratio(3.0, 2.0)) == (0.0, float("inf"), 1.5)


@pytest.mark.parametrize(("kind", "expected"), [("episode", 6.0), ("step", 0.6), ("discounted", 5.0)])
def test_a_score_is_in_the_units_of_its_limit(kind: str, expected: float) -> None:
    agent = cvpo.make_agent(*spaces(), cost_limits=(5.5,), horizon=10, limit_kind=kind)
    evaluation = cvpo.evaluation.Evaluation(
        returns=np.array([1.0, 3.0]),
        costs=np.array([[4.0], [8.0]]),
        discounted=np.array([[4.0], [6.0]]),
        lengths=np.array([10, 10]),
    )
    found = score("x", evaluation, agent.config)
    assert found.costs == (pytest.approx(expected),)
    assert found.within == (expected <= 5.5,)


def test_reviewing_a_run_repeats_its_last_evaluation(finished: tuple[RunFolder, Result]) -> None:
    folder, result = finished
    assert review.scores(folder.path) == (500, result.scores)
    _, (mode, *_) = review.scores(folder.path, 3, seed=1)
    assert mode.episodes == 3 and mode.returned != result.scores[0].returned


def spaces() -> tuple[Any, Any]:
    from gymnasium.spaces import Box

    return Box(-1.0, 1.0, (3,)), Box(-1.0, 1.0, (2,))


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


def copy(folder: RunFolder, to: Path) -> RunFolder:
    import shutil

    shutil.copytree(folder.path, to / "copy")
    return RunFolder(to / "copy")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
