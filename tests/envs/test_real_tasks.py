"""Safety-Gymnasium and Bullet-Safety-Gym, where they are installed: steps, exact resume, pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import random
import warnings

import gymnasium
import numpy as np
import pytest

from cvpo.envs import make
from cvpo.envs.conventions import making
from cvpo.envs.source import find_spec
from cvpo.errors import EnvError
from cvpo.run import configure
from cvpo.run.setting import build, make_env
from tests.envs.test_vector import play, same

needs_safety = pytest.mark.skipif(not importlib.util.find_spec("safety_gymnasium"), reason="no Safety-Gymnasium")
needs_bullet = pytest.mark.skipif(not importlib.util.find_spec("bullet_safety_gym"), reason="no Bullet-Safety-Gym")

SAFETY = [
    ("SafetyHalfCheetahVelocity-v1", 1000, 17),
    ("SafetyPointCircle1-v0", 500, 28),
    ("SafetyPointGoal1-v0", 1000, 60),
]


@needs_safety
@pytest.mark.parametrize(("task", "horizon", "size"), SAFETY)
def test_safety_gymnasium(task, horizon, size):
    original = dataclasses.dataclass
    one = make(task, seed=1)
    assert dataclasses.dataclass is original
    assert (one.horizon, one.obs_size, one.cost_names) == (horizon, size, ("cost",))
    one.reset()
    steps = play(one, 40)
    assert all(np.isfinite(array).all() for array in steps)
    other = make(task, seed=0)
    other.load_state_dict(one.state_dict())
    assert same(play(one, 20, seed=3), play(other, 20, seed=3))
    one.close()
    one.close()
    other.close()


@needs_safety
@pytest.mark.parametrize(
    ("task", "pieces", "kept"),
    [
        ("SafetyPointCircle1-v0", 8, 50_000),
        ("SafetyPointRun0-v0", None, 50_000),
        ("SafetyPointFadingEasy1-v0", 8, 1_000_000),
        ("SafetyPointGoal0-v0", 8, 1_000_000),
        ("SafetyAntVelocity-v1", None, 1_000_000),
    ],
)
def test_a_preset_fits_its_task(task, pieces, kept):
    config = configure(task=task)
    with contextlib.closing(make_env(config, copies=1, cost_keys=config.cost_keys)) as env:
        agent = build(config, env)
    assert (agent.config.obs_pieces, agent.config.buffer.capacity) == (pieces, kept)
    assert agent.config.cost_limits == (25.0,)


@needs_safety
def test_a_cost_is_charged():
    env = make("SafetyHalfCheetahVelocity-v1", horizon=5)
    env.reset()
    env._adapters[0].env.unwrapped._velocity_threshold = -100.0
    assert env.step(np.ones((1, 6))).cost.tolist() == [[1.0]]


@needs_safety
def test_swimmer_without_the_attribute_that_mujoco_dropped():
    from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

    original = MujocoEnv._initialize_simulation
    env = make("SafetySwimmerVelocity-v1")
    assert MujocoEnv._initialize_simulation is original
    env.reset()
    assert np.isfinite(play(env, 20)[0]).all() and env._adapters[0].env.unwrapped.data.ncon == 0


@needs_safety
def test_joints_of_the_car_are_read():
    env = make("safety_gymnasium:SafetyCarGoal0-v0")
    assert env.reset().shape == (1, env.obs_size)


@needs_safety
def test_vision_tasks_are_refused():
    with pytest.raises(EnvError, match="image observations"):
        make("SafetyPointGoal0Vision-v0")


@needs_safety
def test_a_sky_that_nobody_sees_changes_nothing_but_the_time():
    from safety_gymnasium import world

    original = world.xmltodict
    plain, drawn = (make("SafetyPointCircle1-v0", horizon=15, seed=2, **o) for o in ({}, {"render_mode": "rgb_array"}))
    for env in (plain, drawn):
        env.reset()
    assert world.xmltodict is original
    # The second episode has a layout of its own.
    assert same(play(plain, 25), play(drawn, 25))
    pictures = [env._adapters[0].env.unwrapped.task.model.ntexdata for env in (plain, drawn)]
    assert pictures[0] < 1e6 < pictures[1]


@needs_safety
def test_named_costs_and_horizon_of_a_navigation_task():
    env = make("SafetyPointGoal1-v0", horizon=1500, cost_keys=("cost_hazards", "cost"))
    env.reset()
    assert env.horizon == 1500 and play(env, 1)[3].shape == (1, 2)
    env._adapters[0].env.unwrapped.steps = 1200
    assert not play(env, 1)[5][0]
    with pytest.raises(EnvError, match="'cost_vases'.*cost_hazards"):
        short = make("SafetyPointGoal1-v0", cost_keys=("cost_vases",))
        short.reset()
        play(short, 1)


@needs_bullet
@pytest.mark.parametrize("task", ["SafetyCarCircle-v0", "SafetyBallRun-v0", "SafetyBallReach-v0"])
def test_bullet_safety_gym_depends_on_seed_and_actions_alone(task):
    outside = random.getstate(), np.random.get_state()[1].copy()
    one = make(task, 2, seed=1)
    one.reset()
    play(one, 330)
    other = make(task, 2, seed=0)
    other.load_state_dict(one.state_dict())
    assert same(play(one, 60, seed=3), play(other, 60, seed=3))
    assert random.getstate() == outside[0] and np.array_equal(np.random.get_state()[1], outside[1])
    one.close()
    one.close()
    other.close()


@needs_bullet
def test_a_users_own_simulation_is_not_replaced():
    find_spec("SafetyBallReach-v0")
    with making("bullet_safety_gym"):
        env = gymnasium.make("SafetyBallReach-v0")
        env.reset(seed=0)
    client = env.unwrapped.bc
    theirs = make(env, horizon=20)
    theirs.reset()
    play(theirs, 30)
    theirs.close()
    assert env.unwrapped.bc is client and client.getNumBodies() > 0
    env.close()


@needs_bullet
def test_bullet_pictures():
    env = make("SafetyBallRun-v0")
    env.reset()
    assert env.render_frame().std() > 5


@needs_safety
@pytest.mark.parametrize("task", ["SafetyHalfCheetahVelocity-v1", "SafetyPointGoal1-v0"])
def test_mujoco_pictures(task):
    env = make(task)
    env.reset()
    try:
        first = env.render_frame()
    except EnvError as error:
        # A machine without a renderer is no fault of the library; anything else is.
        if "OpenGL does not start" not in str(error):
            raise
        pytest.skip(str(error))
    env.reset()
    play(env, 5)
    second = env.render_frame()
    assert first.shape == second.shape == (360, 480, 3) and first.std() > 5 and not np.array_equal(first, second)
    env.close()


@needs_safety
def test_without_opengl_the_cause_is_named(monkeypatch):
    def no_display(width, height):
        warnings.warn("the DISPLAY environment variable is missing", stacklevel=1)
        raise RuntimeError("no context")

    monkeypatch.setattr("cvpo.envs.camera._context_class", lambda: no_display)
    with make("SafetyHopperVelocity-v1", render_mode="rgb_array") as env:
        env.reset()
        with pytest.raises(EnvError, match="OpenGL does not start .the DISPLAY .* is missing.; set MUJOCO_GL"):
            env.render_frame()
