"""Every option of every component is a flag; files and presets come after flags."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

import cvpo
from cvpo.assembly import DEFAULTS, FAMILIES
from cvpo.cli import main
from cvpo.cli.options import parse
from cvpo.config import AgentConfig
from cvpo.run import from_options
from cvpo.run.config import ALL_OPTIONS
from tests.cli.helpers import Odd


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = FAMILIES["buffer"]
    registry.names()
    monkeypatch.setattr(registry, "_targets", {**registry._targets, "odd": Odd})


def test_without_flags_the_options_are_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    options, folder, seeds = parse([])
    assert folder is None and seeds is None
    assert parse(["--seeds", "0", "5"])[2] == (0, 5)
    assert main(["train", "--seeds"]) == 2
    assert "seeds are []; allowed: one or more" in capsys.readouterr().err
    assert parse(["--critic.cost", "max"])[0]["critic"]["cost"] == "max"
    assert parse(["--critic.cost", "max", "ucb:0.5"])[0]["critic"]["cost"] == ("max", "ucb:0.5")
    config, expected = from_options(options), cvpo.run.configure()
    assert {**config.plain(), **expected.plain()} == config.plain()
    defaults = attrs.fields_dict(AgentConfig)
    assert options["limit_kind"] == defaults["limit_kind"].default


def test_every_option_there_is_has_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for name in ALL_OPTIONS:
        assert f"--{name.replace('_', '-')}" in text
    for family, registry in FAMILIES.items():
        for name in registry.names():
            assert name in text
        component = registry.get(DEFAULTS[family])
        for field in attrs.fields(component):
            if field.init:
                assert f"--{family}.{field.name.replace('_', '-')}" in text


def test_flags_reach_the_component_they_name() -> None:
    line = (
        "--task cvpo/SprintTwoCosts-v0 --cost-limits 3 4 --gamma 0.9 --estep slsqp --estep.max-iter 5 "
        "--critic.members 3 --critic.cost-members 1 2 --critic.hidden 8 8 --mstep.average=state --no-warm-start "
        "--states=replay --horizon 50 "
        "--env.render-mode rgb_array --env.two_costs=true --limit q --workers 1 --cost-keys cost cost_east"
    )
    config = from_options(parse(line.split())[0])
    agent = config.agent
    assert (agent["cost_limits"], agent["gamma"], agent["warm_start"]) == ((3.0, 4.0), 0.9, False)
    assert type(agent["estep"]).__name__ == "Slsqp" and agent["estep"].max_iter == 5
    assert (agent["critic"].members, agent["critic"].hidden, agent["mstep"].average) == (3, (8, 8), "state")
    assert agent["critic"].cost_members == (1, 2)
    assert type(agent["states"]).__name__ == "ReplayStates" and type(agent["limit"]).__name__ == "QLimit"
    assert config.env == {"render_mode": "rgb_array", "two_costs": True}
    assert (config.horizon, config.workers, config.cost_keys) == (50, 1, ("cost", "cost_east"))


def test_no_limits_at_all_can_be_asked_for() -> None:
    assert from_options(parse(["--cost-limits"])[0]).agent["cost_limits"] == ()


def test_flags_come_before_the_file_and_the_file_before_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    file.write_text(
        json.dumps(
            {
                "task": "cvpo/SprintTwoCosts-v0",
                "steps": 11,
                "gamma": 0.8,
                "cost_limits": [7, 8],
                "estep": {"name": "slsqp", "max_iter": 4},
                "critic": {"name": "mlp", "members": 5, "hidden": [3]},
                "env": {"two_costs": True},
            }
        )
    )
    flags = ["--gamma", "0.7", "--critic.members", "6", "--env.render_mode", "human"]
    options, _, _ = parse(["--config", str(file), *flags])
    config = from_options(options)
    assert (config.steps, config.agent["gamma"], config.agent["cost_limits"]) == (11, 0.7, (7.0, 8.0))
    assert config.agent["estep"].max_iter == 4
    assert (config.agent["critic"].members, config.agent["critic"].hidden) == (6, (3,))
    assert config.env == {"two_costs": True, "render_mode": "human"}
    # Another component than the file's does not inherit its options.
    options, _, _ = parse(["--config", str(file), "--estep", "newton"])
    assert type(from_options(options).agent["estep"]).__name__ == "Newton"


def test_parts_that_depend_on_the_action_space_stay_open() -> None:
    task = ["--task", "Pendulum-v1"]
    open_options, _, _ = parse(task)
    assert "policy" not in open_options and "mstep" not in open_options
    named, _, _ = parse([*task, "--policy", "diagonal"])
    assert parse([*task, "--policy.hidden", "8"])[0]["policy"] == {**named["policy"], "hidden": (8,)}


def test_fields_of_any_type_have_flags(odd: None, capsys: pytest.CaptureFixture[str]) -> None:
    line = "--buffer odd --buffer.must 2 --buffer.kind b --buffer.pair 5 y --buffer.maybe 0.5 --buffer.rule max"
    buffer = parse([*line.split(), "--buffer.anything", "[1, 2]", "--buffer.table", "{'y': 2}"])[0]["buffer"]
    name = buffer.pop("name")
    assert name == "odd"
    assert buffer == dict(
        must=2.0, depth=3, kind="b", pair=(5, "y"), maybe=0.5, rule="max", anything=[1, 2], table={"y": 2}
    )
    with pytest.raises(SystemExit):
        parse(["--buffer", "odd", "--help"])
    assert "how deep" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        parse(["--buffer", "odd"])
    assert end.value.code == 2
    assert "--buffer.must" in capsys.readouterr().err
