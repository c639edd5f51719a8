"""One configuration whatever way it is written; what cannot be used or run is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch

from cvpo import presets
from cvpo.envs import COST_KEYS, COST_LIMITS
from cvpo.errors import ConfigError
from cvpo.estep.newton import Newton
from cvpo.run import RunConfig, RunFolder, configure, from_options, load_config, train
from tests.run.helpers import SMALL


@attrs.frozen
class OwnSolver(Newton):
    """A solver of the user's own."""

    summary: ClassVar[str] = "own"
    strength: float = 1.0


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
        ({"env": 3}, "env is 3; allowed"),
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
        ({"critic": {"name": "mlp", "reward": max}}, "MLPCritic.reward is the function max, which no file holds"),
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
