"""What files hold of components: those inside others, those that cannot be told, and those that must not be made."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import attrs
import gymnasium
import numpy as np
import pytest

import cvpo
from cvpo import checkpoint, estep
from cvpo.cli import main
from cvpo.errors import ConfigError
from cvpo.run import RunFolder, load_config
from tests.fakes import SMALL, line_agent


@attrs.frozen
class Margin:
    """A solver with another one inside."""

    margin: float = 0.1
    solver: Any = attrs.field(factory=lambda: estep.registry.create("newton", max_iter=40))

    def solve(self, problem: estep.DualProblem, warm: estep.DualSolution | None = None) -> estep.DualSolution:
        return self.solver.solve(problem, warm)


class Plain:
    """A solver whose options nobody can tell."""

    def __init__(self, x: int = 3) -> None:
        self.x = x

    def solve(self, problem: estep.DualProblem, warm: estep.DualSolution | None = None) -> estep.DualSolution:
        raise NotImplementedError


@pytest.mark.parametrize("inside", [lambda one: one, lambda one: {"by name": [one]}])
def test_a_component_inside_a_component_is_saved_with_its_options(tmp_path: Path, inside: Any) -> None:
    own = Margin(0.2, inside(estep.registry.create("slsqp", max_iter=7)))
    agent, _ = line_agent(1, estep=own)
    agent.save(tmp_path / "agent.safetensors")
    assert cvpo.load(tmp_path / "agent.safetensors").config.estep == own


def test_it_trains_in_a_run_folder(tmp_path: Path) -> None:
    small = ["--steps", "60", "--warmup-steps", "30", "--eval-every", "0", "--eval-episodes", "1"]
    sizes = ["--policy.hidden", "8", "--critic.hidden", "8", "--batch-size", "16"]
    name = "tests.test_saving:Margin"
    assert (
        main(["train", "--run", str(tmp_path / "run"), "--estep", name, "--estep.margin", "0.3", *small, *sizes]) == 0
    )
    found = load_config(RunFolder(tmp_path / "run")).agent["estep"]
    assert found == Margin(0.3)
    assert main(["resume", str(tmp_path / "run"), "--steps", "80"]) == 0


def test_options_that_cannot_be_told_are_an_error_when_they_are_to_be_saved(tmp_path: Path) -> None:
    agent, _ = line_agent(1, estep=Plain(7))
    with pytest.raises(ConfigError, match=r"Plain is no attrs class, so that its options \['x'\] cannot be written"):
        agent.save(tmp_path / "agent.safetensors")
    assert main(["train", "--run", str(tmp_path / "run"), "--estep", "tests.test_saving:Plain"]) == 2


def test_a_function_among_the_options_is_named_and_what_was_learned_goes_on(tmp_path: Path) -> None:
    sizes = {"name": "mlp", "hidden": (16, 16)}
    agent, _ = line_agent(1, critic={**sizes, "cost": lambda values: values.amax(-3)})
    with pytest.raises(
        ConfigError, match="MLPCritic.cost is the function .*<lambda>, which no file holds; allowed: a name"
    ):
        agent.save(tmp_path / "agent.safetensors")
    named, _ = line_agent(1, critic={**sizes, "cost": "max"})
    named.load_state_dict(agent.state_dict())
    named.save(tmp_path / "agent.safetensors")
    assert (tmp_path / "agent.safetensors").exists()


class Bare(Plain):
    """A solver without options, and no attrs class."""

    def __init__(self) -> None:
        """Nothing."""


class Outer:
    """A class with a component in it."""

    @attrs.frozen
    class Inner(Margin):
        """A solver in a class."""


def test_what_no_file_would_find_again_is_not_written_down(tmp_path: Path) -> None:
    @attrs.frozen
    class Local(Margin):
        """A solver in a function."""

    for solver in (Local(), Margin(solver=Local())):
        agent, _ = line_agent(1, estep=solver)
        with pytest.raises(ConfigError, match="Local is a class inside a function, which no file finds"):
            agent.save(tmp_path / "agent.safetensors")
    agent, _ = line_agent(1, estep=Bare())
    with pytest.raises(ConfigError, match="Bare is no attrs class"):
        agent.save(tmp_path / "agent.safetensors")
    agent, _ = line_agent(1, estep=Outer.Inner(0.3))
    agent.save(tmp_path / "agent.safetensors")
    assert cvpo.load(tmp_path / "agent.safetensors").config.estep == Outer.Inner(0.3)


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.MultiBinary([2, 3]),
        gymnasium.spaces.MultiBinary([3]),
        gymnasium.spaces.MultiDiscrete([2, 3], start=[1, 0]),
        gymnasium.spaces.Text(4, min_length=2, charset="zyx"),
        gymnasium.spaces.Dict(a=gymnasium.spaces.MultiBinary(2), b=gymnasium.spaces.Discrete(3, start=1)),
    ],
    ids=lambda space: type(space).__name__,
)
def test_what_is_trained_on_can_be_saved(space: Any, tmp_path: Path) -> None:
    agent = cvpo.make_agent(space, gymnasium.spaces.Box(-1.0, 1.0, (2,)), **SMALL)
    agent.save(tmp_path / "agent.safetensors")
    loaded = cvpo.load(tmp_path / "agent.safetensors")
    space.seed(0)
    for _ in range(5):
        obs = space.sample()
        np.testing.assert_array_equal(loaded.predict(obs)[0], agent.predict(obs)[0])
    assert loaded.observation_space == agent.observation_space


@pytest.mark.parametrize("path", ["cvpo.critics.given:GivenCost", None])
def test_nor_does_a_component_inside_a_component_make_anything_else(tmp_path: Path, path: str | None) -> None:
    made = tmp_path / "made"
    agent, _ = line_agent(1)
    agent.save(tmp_path / "agent.safetensors")
    tree = checkpoint.read(tmp_path / "agent.safetensors")
    inner = {"critic": {"name": "subprocess:Popen", "args": ["touch", str(made)]}}
    own = {"name": "given", **inner} if path is None else {"name": "mlp", "members": {"class": path, "options": inner}}
    checkpoint.write(tmp_path / "other.safetensors", {**tree, "config": {**tree["config"], "critic": own}})
    with pytest.raises(ConfigError, match="from a file is no attrs class"):
        cvpo.load(tmp_path / "other.safetensors")
    assert not made.exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"name": "subprocess:check_output", "args": "touch {path}", "shell": True},
            "is of type function; allowed: a class",
        ),
        ({"name": "subprocess:Popen", "args": "touch {path}", "shell": True}, "from a file is no attrs class"),
        (
            {
                "name": "newton",
                "max_iter": {"class": "subprocess:Popen", "options": {"args": "touch {path}", "shell": True}},
            },
            "from a file is no attrs class",
        ),
    ],
)
def test_a_file_makes_components_and_nothing_else(tmp_path: Path, spec: dict[str, Any], message: str) -> None:
    made = tmp_path / "made"
    spec = json.loads(json.dumps(spec).replace("{path}", str(made)))
    agent, _ = line_agent(1)
    agent.save(tmp_path / "agent.safetensors")
    tree = checkpoint.read(tmp_path / "agent.safetensors")
    tree["config"]["estep"] = spec
    checkpoint.write(tmp_path / "other.safetensors", tree)
    with pytest.raises(ConfigError, match=message):
        cvpo.load(tmp_path / "other.safetensors")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.config.write_text(json.dumps({"task": "cvpo/Sprint-v0", "estep": spec}))
    with pytest.raises(ConfigError, match=message):
        load_config(folder)
    assert not made.exists()


def test_entries_of_an_observation_keep_their_order(tmp_path) -> None:
    spaces = gymnasium.spaces
    box = spaces.Box(-1, 1, (2,))
    agent = cvpo.make_agent(spaces.Dict(velocity=box, heading=box), box, **SMALL)
    agent.save(tmp_path / "agent")
    again = cvpo.load(tmp_path / "agent")
    assert list(again.observation_space) == ["velocity", "heading"]
    obs = {"heading": np.array([0.1, -0.4]), "velocity": np.array([0.9, 0.3])}
    np.testing.assert_array_equal(agent.predict(obs)[0], again.predict(obs)[0])


@pytest.mark.parametrize("cost", ["mean", "ucb:0.5"])
def test_an_agent_goes_to_another_process_as_it_is(cost: str) -> None:
    agent, _ = line_agent(critic={**SMALL["critic"], "cost": cost})
    agent.learn(40)
    agent.env = None
    other = pickle.loads(pickle.dumps(agent))
    for ours, theirs in zip(agent.update().values(), other.update().values(), strict=True):
        assert ours.equal(theirs)
