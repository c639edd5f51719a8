"""Errors are one clear line and an exit status."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cvpo.cli
from cvpo.cli import main
from cvpo.cli.options import parse


def test_an_unknown_option_of_a_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "options.json").write_text('{"gama": 0.9}')
    assert main(["train", "--config", str(tmp_path / "options.json")]) == 2
    assert "there is no option 'gama'; did you mean 'gamma'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"critic": {"members": 4}}, "critic is {'members': 4}; allowed: a name, or an object with a name"),
        ({"policy": None}, "policy is None"),
        ({"buffer": 5}, "buffer is 5"),
        ({"env": None}, "env is None; allowed: an object of keywords"),
        ({"estep": {"name": 5}}, "estep is {'name': 5}"),
        ({"task": 5}, "task is 5; allowed: the Gymnasium id of a task"),
    ],
)
def test_errors_of_a_configuration_file_name_the_option(
    options: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "options.json"
    file.write_text(json.dumps(options))
    assert main(["train", "--config", str(file)]) == 2
    assert words in capsys.readouterr().err


def test_a_limit_of_a_configuration_file_may_be_a_number(tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    file.write_text(json.dumps({"cost_limits": 10.0}))
    assert parse(["--config", str(file)])[0]["cost_limits"] == (10.0,)
    with pytest.raises(SystemExit) as end:
        parse(["--config", str(file), "--help"])
    assert end.value.code == 0


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("trian", 2, ["'trian'", "did you mean 'train'"]),
        ("train --estep nweton", 2, ["unknown E-step solver 'nweton'", "did you mean 'newton'"]),
        ("train --task cvpo/Sprnt-v0", 2, ["did you mean 'cvpo/Sprint-v0'"]),
        ("train --cost-limits 1 2", 2, ["2 costs"]),
        ("train --cost-limits -1", 2, ["cost_limits has -1"]),
        ("train --config missing.json", 2, ["missing.json", "No such file"]),
        ("train --env.colour", 2, ["--env.colour needs a value"]),
        ("train --estep.tolerance -1", 2, ["Newton.tolerance is -1"]),
        ("resume nowhere", 1, ["nowhere is not a run folder"]),
        ("eval nowhere", 1, ["nowhere is not a run folder"]),
        ("plot", 2, ["name run folders"]),
        ("plot nowhere", 1, ["nowhere is not a run folder"]),
        ("list estp", 2, ["did you mean 'estep'"]),
        ("check estp newton", 2, ["did you mean 'estep'"]),
        ("check limit q", 2, ["no property tests for 'limit'", "estep", "mstep", "policy", "critic", "buffer"]),
        ("check estep newton max_iter", 2, ["KEY=VALUE"]),
        ("train --estep nowhere:Solver", 2, ["nowhere"]),
        ("train --buffer tests.test_custom:NewestFirst", 2, ["buffer builds a", "has no state_dict"]),
    ],
)
def test_errors_are_one_clear_line(
    line: str, status: int, words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    os.chdir(tmp_path)
    assert main(line.split()) == status
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("cvpo: error: ")
    for word in words:
        assert word in errors[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["episodes", "seed"])
def test_an_evaluation_of_nothing(run: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), f"--{option}=-1"]) == 2
    assert capsys.readouterr().err.startswith(f"cvpo: error: {option} is -1; allowed: an integer >= ")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("train --gama 0.9", "--gamma"),
        ("train --estep.max-itr 3", "--estep.max-iter"),
        ("eval x --epsodes 3", "--episodes"),
    ],
)
def test_a_misspelt_flag_suggests_the_right_one(line: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    assert word in capsys.readouterr().err


def test_a_failure_says_what_was_saved(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise cvpo.EnvError("the environment fell over")

    monkeypatch.setattr("cvpo.cli.resume_command.resume", breaks)
    assert main(["resume", str(run)]) == 1
    errors = capsys.readouterr().err
    assert "cvpo: error: the environment fell over\nsaved up to step 300; continue with `cvpo resume" in errors


def test_what_was_asked_for_in_vain_leaves_nothing_to_say_of_what_was_saved(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(run), "--steps", "10"]) == 2
    errors = capsys.readouterr().err
    assert "steps is 10, and run" in errors and "saved up to" not in errors


def test_an_error_in_a_worker_shows_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"train --task tests.cli.tasks:Raises-v0 --workers 1 --steps 300 --run {tmp_path / 'run'}"
    assert main(line.split()) == 1
    errors = capsys.readouterr().err
    assert "ZeroDivisionError" in errors and "helpers.py" in errors and "in step" in errors


def test_without_the_packages_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert main(["list"]) == 2
    assert "pip install 'cvpo[train]'" in capsys.readouterr().err


def test_a_package_that_breaks_on_import(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("invalid value for environment variable")

    monkeypatch.setenv("MUJOCO_GL", "egll")
    monkeypatch.setattr(cvpo.cli, "importlib", SimpleNamespace(import_module=broken))
    assert main(["list"]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "RuntimeError: invalid value" in errors[0] and "MUJOCO_GL is 'egll'" in errors[0]
