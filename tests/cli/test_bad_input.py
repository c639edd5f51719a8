"""Bad input met while a run is going on: one clear message, an exit status, and nothing lost that was saved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cvpo.cli import main
from cvpo.envs.sprint import Sprint
from cvpo.run import RunFolder

#: Without a single update, with a checkpoint at step 100.
BARE = (
    "--cost-limits 5 --steps 200 --warmup-steps 200 --checkpoint-every 100 --log-every 50 --eval-every 0 "
    "--eval-episodes 1 --no-tensorboard"
).split()


@pytest.mark.parametrize(
    ("task", "options", "words", "saved"),
    [
        ("NanObservation", "", ["step 150", "the observation is not finite: entry 1 is nan"], 100),
        ("NanReward", "", ["step 150", "reward is nan"], 100),
        ("NanCost", "", ["step 150", "cost is nan"], 100),
        ("Costless", "", ["there is no cost 'cost' in info", "speed", "cost_keys=()"], None),
        ("Endless", "", ["has no horizon", "horizon=T"], None),
        ("Odd", "", ["MultiDiscrete([2 3]) is not supported", "allowed: a Box"], None),
        ("Exits", "--workers 1", ["worker 0 (environment 0) ended with exit code 7"], None),
    ],
)
def test_a_task_with_something_wrong(
    task: str, options: str, words: list[str], saved: int | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert main(["train", "--task", f"tests.cli.tasks:{task}-v0", "--run", str(run), *BARE, *options.split()]) == 1
    errors = capsys.readouterr().err
    ours = errors[errors.index("cvpo: error: ") :].strip().splitlines()
    assert all(word in ours[0] for word in words)
    expected = [] if saved is None else [f"saved up to step {saved}; continue with `cvpo resume {run}`"]
    assert ours[1:] == expected
    assert [step for step, _ in RunFolder(run).checkpoints().files()] == ([] if saved is None else [saved])


def test_an_error_of_an_environment_keeps_its_traceback_and_says_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, count = Sprint.step, iter(range(10**9))

    def breaks(self: Sprint, action: Any) -> Any:
        return step(self, action) if next(count) < 150 else 1 / 0

    monkeypatch.setattr(Sprint, "step", breaks)
    with pytest.raises(ZeroDivisionError) as caught:
        main(["train", "--run", str(tmp_path / "run"), *BARE])
    assert caught.value.__notes__ == [f"saved up to step 100; continue with `cvpo resume {tmp_path / 'run'}`"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "--run", str(run), *BARE]) == 0
    (run / "checkpoints" / "step-0000000300.safetensors.partial").symlink_to("/dev/full")
    capsys.readouterr()
    assert main(["resume", str(run), "--steps", "300"]) == 1
    errors = capsys.readouterr().err
    assert "step-0000000300.safetensors could not be written: No space left on device\n" in errors
    assert f"saved up to step 200; continue with `cvpo resume {run}`" in errors
    assert main(["resume", str(run)]) == 0


def test_damaged_checkpoints(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = RunFolder(shutil.copytree(run, tmp_path / "copy"))
    (_, newest), *_ = copy.checkpoints().files()
    older = newest.with_name("step-0000000100.safetensors")
    shutil.copy(newest, older)
    os.truncate(newest, 1000)
    assert main(["eval", str(copy.path), "--episodes", "1"]) == 0
    assert "cannot be read" in (errors := capsys.readouterr().err) and "trying the one before it" in errors
    os.truncate(older, 1000)
    for command in ("eval", "resume"):
        assert main([command, str(copy.path)]) == 1
        errors = capsys.readouterr().err
        assert f"no checkpoint in {copy.path / 'checkpoints'} is whole" in errors
        assert errors.count("cvpo: error: ") == 1 and "saved up to" not in errors


def test_a_damaged_configuration(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = RunFolder(shutil.copytree(run, tmp_path / "copy"))
    copy.config.write_text(copy.config.read_text()[:50])
    for command in ("eval", "resume", "plot"):
        assert main([command, str(copy.path)]) == 2
        errors = capsys.readouterr().err.strip().splitlines()
        assert len(errors) == 1 and "config.json is not JSON" in errors[0]
