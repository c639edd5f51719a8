"""Automatic resets, episode seeds, and exact resume at any step."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvpo.envs import VectorEnv, as_vector, make
from cvpo.envs.adapter import episode_seed
from cvpo.errors import ConfigError, EnvError
from tests.envs.helpers import Forgetful, SixTuple, Toy, walk

FIELDS = ("obs", "next_obs", "reward", "cost", "terminated", "truncated")


def play(env: VectorEnv, steps: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(steps):
        step = env.step(env.door.sample(env.num_envs, rng))
        out += [getattr(step, field) for field in FIELDS]
    return out


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def test_final_observation_is_not_that_of_the_reset():
    env = make(walk, 2, horizon=10)
    first = env.reset()
    assert first.shape == (2, 3) and not np.array_equal(first[0], first[1])
    for count in range(1, 15):
        step = env.step(np.ones((2, 2)))
        over = count % 7 == 0
        assert step.terminated.tolist() == [over, over] and not step.truncated.any()
        assert np.array_equal(step.obs, step.next_obs) is not over
        # Ten per cent of the sum of the actions in each step, from where the episode began.
        assert np.allclose(step.next_obs, first + 0.2 * ((count - 1) % 7 + 1), atol=0.2)
        if over:
            first = step.obs


def test_records_do_not_share_memory():
    env = make(Toy, horizon=10)
    env.reset()
    step = env.step(np.zeros((1, 2)))
    step.obs[:] = 99.0
    assert step.next_obs[0, 0] != 99.0 and env.state_dict()["obs"][0, 0] != 99.0


def test_every_episode_has_its_own_seed():
    seeds = {episode_seed(s, n, e) for s in range(5) for n in range(5) for e in range(5)}
    assert len(seeds) == 125 and all(0 <= seed < 2**32 for seed in seeds)
    toy = Toy()
    env = make(toy, seed=4, horizon=10)
    for episode in range(3):
        expected, _ = Toy().reset(seed=episode_seed(4, 0, episode))
        assert np.array_equal(env.reset()[0], expected.astype(np.float32))


def test_reset_with_a_seed_begins_again():
    env = make("cvpo/Sprint-v0", 2, seed=1)
    first = env.reset()
    play(env, 130)
    assert not np.array_equal(env.reset(), first)
    assert np.array_equal(env.reset(seed=1), first) and env.seed == 1
    assert np.array_equal(make("cvpo/Sprint-v0", 2, seed=9).reset(seed=1), first)


@settings(max_examples=25, deadline=None)
@given(before=st.integers(0, 230), count=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_resume_at_any_step_is_exact(before, count, seed):
    one = make("cvpo/Sprint-v0", count, seed=seed)
    one.reset()
    play(one, before)
    state = {name: array.copy() for name, array in one.state_dict().items()}
    other = make("cvpo/Sprint-v0", count, seed=0)
    obs = other.load_state_dict(state)
    assert np.array_equal(obs, state["obs"])
    assert same(play(one, 120, seed=5), play(other, 120, seed=5))
    assert same(list(one.state_dict().values()), list(other.state_dict().values()))


def test_resume_before_the_first_reset():
    state = make(Toy, seed=3, horizon=10).state_dict()
    other = make(Toy, seed=0, horizon=10)
    other.load_state_dict(state)
    assert np.array_equal(other.reset(), make(Toy, seed=3, horizon=10).reset())


def test_environment_that_does_not_repeat_itself_is_found_out():
    env = make(Forgetful, horizon=10)
    env.reset()
    play(env, 4)
    state = env.state_dict()
    with pytest.raises(EnvError, match="episode 0 of environment 0.*after 4 steps.*not determined"):
        env.load_state_dict(state)
    with pytest.warns(UserWarning, match="next episode begins"):
        env.load_state_dict(state, strict=False)
    assert env.state_dict()["episode"] == [1] and env.state_dict()["steps"] == [0]


def test_difference_that_only_the_rewards_show_is_found_out():
    class Moody(Toy):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            return obs, reward + np.random.default_rng().normal(), *rest

    env = make(Moody, horizon=10)
    env.reset()
    play(env, 2)
    with pytest.raises(EnvError, match="repeat"):
        env.load_state_dict(env.state_dict())


def test_state_of_other_environments_is_refused():
    env, pair = make(Toy, horizon=10), make(Toy, 2, horizon=10)
    pair.reset()
    with pytest.raises(EnvError, match="of 2 environments; there are 1"):
        env.load_state_dict(pair.state_dict())
    with pytest.raises(EnvError, match="entries"):
        env.load_state_dict({"episode": np.zeros(1)})


def test_actions_are_checked():
    env = make(Toy, 2, horizon=10)
    env.reset()
    with pytest.raises(EnvError, match=r"\[1, 2\]; allowed: \[2, 2\]"):
        env.step(np.zeros((1, 2)))
    with pytest.raises(EnvError, match="environment 1 are not finite"):
        env.step(np.array([[0, 0], [np.nan, 0]]))


def test_users_instances_stay_open():
    mine = [Toy(), SixTuple()]
    with make(mine, horizon=10) as env:
        assert env.num_envs == 2 and env.reset().shape == (2, 3)
    env.close()
    with pytest.raises(EnvError, match="closed"):
        env.step(np.zeros((2, 2)))
    assert not any(toy.closed for toy in mine)
    made = []
    with make(lambda: made.append(Toy()) or made[-1], 2, horizon=10):
        pass
    assert [toy.closed for toy in made] == [True, True]


def test_as_vector():
    env = make(Toy, horizon=10)
    assert as_vector(env) is env
    assert as_vector(gymnasium.make("Pendulum-v1"), costs=0).cost_names == ()
    assert as_vector(gymnasium.make("cvpo/Sprint-v0"), costs=1).cost_names == ("cost",)
    with pytest.raises(ConfigError, match="need names"):
        as_vector(gymnasium.make("cvpo/SprintTwoCosts-v0"), costs=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 2}, "workers is 2"),
        ({"workers": True}, "workers is True"),
        ({"horizon": 0}, "horizon is 0; allowed: a positive number of steps"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(Toy, **{"horizon": 10, **arguments})
    with pytest.raises(ConfigError, match=message):
        make("cvpo/Sprint-v0", **arguments)
    with pytest.raises(ConfigError, match="as many environments"):
        make(Toy(), 2, horizon=10)
    assert make(Toy, horizon=np.int64(10)).horizon == 10
    with pytest.raises(ConfigError, match="exist already"):
        make(Toy(), horizon=10, workers=1)
