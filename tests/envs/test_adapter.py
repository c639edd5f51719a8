"""Cost conventions, spaces, horizons and everything an environment can get wrong."""

from __future__ import annotations

import re

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from cvpo.envs import make
from cvpo.errors import ConfigError, EnvError
from tests.envs.helpers import Faulty, SixTuple, Toy

ACTION = np.zeros((1, 2), dtype=np.float32)


def stepped(env, actions=ACTION):
    env.reset()
    return env.step(actions)


@pytest.mark.parametrize(
    ("factory", "keys", "expected"),
    [
        (Toy, None, [0.5]),
        (SixTuple, None, [2.0]),
        (Toy, (), []),
        (SixTuple, (), []),
        (lambda: Toy({"cost_a": 1, "cost_b": np.float32(0.25)}), ("cost_a", "cost_b"), [1.0, 0.25]),
        (lambda: Toy({"cost_a": 1, "cost_b": 3}), ("cost_b", "cost_a"), [3.0, 1.0]),
        (lambda: SixTuple({"cost_hazards": True}), ("cost_hazards", "cost"), [1.0, 2.0]),
        (lambda: Toy({"cost_a": 1}), "cost_a", [1.0]),
    ],
)
def test_cost_conventions(factory, keys, expected):
    env = make(factory, horizon=10, cost_keys=keys)
    step = stepped(env)
    assert step.cost.shape == (1, len(env.cost_names)) and step.cost.tolist() == [expected]
    assert step.reward.dtype == step.cost.dtype == np.float64 and step.obs.dtype == np.float32


def test_missing_cost_names_key_found_keys_and_task():
    env = make(lambda: Toy({"kost": 1.0, "x": 2}), horizon=10, cost_keys=("cost_a",))
    with pytest.raises(EnvError, match=r"lambda.*environment 0, episode 0, step 1.*'cost_a'.*'kost', 'x'"):
        stepped(env)


def test_cost_keys_are_checked():
    with pytest.raises(ConfigError, match="distinct names"):
        make(Toy, horizon=10, cost_keys=("cost", "cost"))


@pytest.mark.parametrize("what", ["observation", "reward", "cost"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_named_with_their_place(what, value):
    env = make(lambda: Faulty(what, value), horizon=10)
    env.reset()
    env.reset()
    env.step(ACTION)
    with pytest.raises(EnvError, match=f"episode 1, step 2: .*{what} is.*{value}"):
        env.step(ACTION)


def test_observation_too_large_for_float32_is_an_error():
    with pytest.raises(EnvError, match="not finite"), pytest.warns(RuntimeWarning, match="overflow"):
        stepped(make(lambda: Faulty("observation", 1e300, at=1), horizon=10))


@pytest.mark.parametrize("cost", ["much", None, [1.0, 2.0]])
def test_cost_that_is_no_number(cost):
    with pytest.raises(EnvError, match="cost is .*allowed: a finite number"):
        stepped(make(lambda: Toy({"cost": cost}), horizon=10))


def test_dict_and_image_observations_are_flattened():
    space = spaces.Dict(
        {"a": spaces.Box(-1, 1, (2, 2)), "b": spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (1,))))}
    )

    class Nested(Toy):
        def observation(self):
            return {"a": np.arange(4.0).reshape(2, 2), "b": (1, np.array([9.0]))}

    env = make(lambda: Nested(observation_space=space), horizon=10)
    assert env.obs_size == 8 and env.observation_space == space
    assert env.reset().tolist() == [[0, 1, 2, 3, 0, 1, 0, 9]]


def test_observation_outside_its_space_is_an_error():
    class Short(Toy):
        def observation(self):
            return np.zeros(2)

    with pytest.raises(EnvError, match=r"shape \[2\]; allowed: \[3\]"):
        make(Short, horizon=10).reset()


def test_actions_are_scaled_per_dimension_and_clipped():
    space = spaces.Box(np.array([-1.0, 0.0, 5.0], dtype=np.float32), np.array([1.0, 10.0, 7.0], dtype=np.float32))
    toy = Toy(action_space=space)
    env = make(toy, horizon=10)
    env.reset()
    for action in ([-1, -1, -1], [1, 1, 1], [0, 0, 0], [-9, 9, 0.5]):
        env.step(np.array([action], dtype=np.float32))
    assert np.array_equal(toy.actions, [[-1, 0, 5], [1, 10, 7], [0, 5, 6], [-1, 10, 6.5]])
    assert all(action.dtype == np.float32 and action in space for action in toy.actions)


def test_shape_of_the_action_space_is_kept():
    toy = Toy(action_space=spaces.Box(-2.0, 2.0, (2, 2), np.float64))
    env = make(toy, horizon=10)
    assert env.action_size == 4
    stepped(env, np.array([[0.5, 0, -0.5, 1]]))
    assert np.array_equal(toy.actions[0], [[1, 0], [-1, 2]]) and toy.actions[0].dtype == np.float64


def test_discrete_actions_are_one_hot():
    toy = Toy(action_space=spaces.Discrete(3, start=5))
    env = make(toy, horizon=10)
    assert env.discrete and env.action_size == 3
    stepped(env, np.array([[0, 0, 1]]))
    assert toy.actions == [7]


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Box(0, 4, (2,), np.int64),
    ],
)
def test_unsupported_action_spaces_are_named(space):
    with pytest.raises(EnvError, match=re.escape(str(space))):
        make(lambda: Toy(action_space=space), horizon=10)


def test_unsupported_observation_space_is_named():
    space = spaces.Sequence(spaces.Box(0, 1, (1,)))
    with pytest.raises(EnvError, match=re.escape(str(space))):
        make(lambda: Toy(observation_space=space), horizon=10)


def test_horizon_truncates_and_is_required():
    env = make(Toy, horizon=3)
    env.reset()
    cuts = [env.step(ACTION).truncated[0] for _ in range(6)]
    assert cuts == [False, False, True, False, False, True] and env.horizon == 3
    with pytest.raises(EnvError, match="no horizon.*horizon=T"):
        make(Toy)
    with pytest.raises(ConfigError, match="horizon is -1"):
        make(Toy, horizon=-1)


def test_horizon_of_registered_tasks():
    assert make("Pendulum-v1", cost_keys=()).horizon == 200
    assert make("Pendulum-v1", cost_keys=(), horizon=300).horizon == 300
    own = gymnasium.make("Pendulum-v1")
    assert make(own, cost_keys=()).horizon == 200 and make(own, cost_keys=(), horizon=50).horizon == 50
    with pytest.raises(EnvError, match="after 200 steps"):
        make(own, cost_keys=(), horizon=300)
    with pytest.raises(ConfigError, match="horizon"):
        make("Pendulum-v1", cost_keys=(), max_episode_steps=300)


def test_six_tuple_of_an_instance_is_truncated_too():
    step = stepped(make(SixTuple(), horizon=1))
    assert step.truncated[0] and step.cost[0, 0] == 2.0


@pytest.mark.parametrize("task", ["cvpo/Sprnt-v0", "Pendulun-v1"])
def test_unknown_task_suggests(task):
    with pytest.raises(ConfigError, match="did you mean '(cvpo/Sprint-v0|Pendulum-v1)'"):
        make(task)


def test_unknown_options_and_modules():
    with pytest.raises(ConfigError, match="colour"):
        make("cvpo/Sprint-v0", colour="red")
    with pytest.raises(ConfigError, match="no_such_module"):
        make("no_such_module:Task-v0")
    with pytest.raises(EnvError, match="returned a int"):
        make(lambda: 3)
    with pytest.raises(ConfigError, match="task is a int"):
        make(3)


def test_drawing():
    env = make("cvpo/Sprint-v0", render_mode="rgb_array")
    env.reset()
    assert env.render_frame().shape == (160, 160, 3) and env.render_frame().dtype == np.uint8
    plain = make("cvpo/Sprint-v0")
    plain.reset()
    with pytest.raises(EnvError, match="render_mode='rgb_array'"):
        plain.render_frame()
