"""Answers of environments in another form than Gymnasium's: refused where they would be taken for something else."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from cvpo.envs import make
from cvpo.errors import EnvError
from tests.envs.helpers import Toy
from tests.envs.test_adapter import stepped


class Odd(Toy):
    """Answers of ``reset`` and ``step`` as they were given: a function of the right one each."""

    def __init__(self, reset=lambda answer: answer, step=lambda answer: answer, **options) -> None:
        super().__init__(**options)
        self._reset, self._step = reset, step

    def reset(self, **options):
        return self._reset(super().reset(**options))

    def step(self, action):
        return self._step(super().step(action))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reset": lambda answer: answer[0]}, "reset returned a ndarray"),
        ({"reset": lambda answer: None}, "reset returned a NoneType"),
        ({"step": lambda answer: (*answer[:4], None)}, "info of type NoneType"),
        ({"step": lambda answer: (*answer[:2], 0.5, *answer[2:4], None)}, "info of type NoneType"),
        ({"step": lambda answer: (*answer[:3], np.zeros(2, bool), answer[4])}, "truncated is array"),
        ({"info": {"cost": 1e200}}, "cost is 1e.200; allowed: a finite number, also in float32"),
    ],
)
def test_answers_of_another_form_are_an_error_that_says_where(options, words):
    with pytest.raises(EnvError, match=f"task .*environment 0, episode 0, step .*{words}"):
        stepped(make(Odd(**options), horizon=10))


@pytest.mark.parametrize(
    ("space", "obs"),
    [
        (gymnasium.spaces.Discrete(3), -1),
        (gymnasium.spaces.Discrete(3), 3),
        (gymnasium.spaces.Discrete(3), np.array([0, 2])),
        (gymnasium.spaces.MultiDiscrete([2, 3]), np.array([3, 1])),
        (gymnasium.spaces.Box(-1, 1, (2, 3)), np.zeros((3, 2))),
        (gymnasium.spaces.Dict(a=gymnasium.spaces.Discrete(3)), {"a": -1}),
        (gymnasium.spaces.Tuple([gymnasium.spaces.Box(-1, 1, (2, 3))]), (np.zeros((3, 2)),)),
        (gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3)]), (1, 2)),
    ],
)
def test_an_observation_that_would_be_taken_for_another_is_an_error(space, obs):
    class Other(Toy):
        def observation(self):
            return obs

    with pytest.raises(EnvError, match="not of the observation space"):
        make(Other(observation_space=space), horizon=10).reset()


def test_axes_of_length_one_more_or_less_are_none_the_worse():
    class Wide(Toy):
        def observation(self):
            return np.arange(3.0)[None]

    assert make(Wide, horizon=10).reset().tolist() == [[0.0, 1.0, 2.0]]


@pytest.mark.filterwarnings("error")
def test_answers_may_be_tensors():
    def step(answer):
        return torch.as_tensor(answer[0]), torch.tensor(1.0), torch.tensor(False), torch.tensor(True), answer[4]

    found = stepped(make(Odd(step=step), horizon=10))
    assert found.truncated[0] and not found.terminated[0]
    space = gymnasium.spaces.Discrete(3)
    assert make(Odd(reset=lambda _: (torch.tensor(2), {}), observation_space=space), horizon=10).reset()[0, 2] == 1.0


def test_a_flat_vector_of_a_matrix_is_taken_as_it_lies():
    space = gymnasium.spaces.Box(-1, 1, (2, 3))
    assert make(Odd(reset=lambda _: (np.arange(6.0) / 6, {}), observation_space=space), horizon=10).reset().shape == (
        1,
        6,
    )


def test_nested_spaces_lie_as_gymnasium_flattens_them():
    discrete, box = gymnasium.spaces.Discrete(3, start=1), gymnasium.spaces.Box(-1, 1, (2, 2))
    space = gymnasium.spaces.Dict(b=gymnasium.spaces.Tuple([discrete, box]), a=gymnasium.spaces.MultiDiscrete([2, 3]))
    space.seed(0)
    for _ in range(5):
        obs = space.sample()
        env = make(Odd(reset=lambda _, obs=obs: (obs, {}), observation_space=space), horizon=10)
        np.testing.assert_array_equal(env.reset()[0], gymnasium.spaces.flatten(space, obs))


@pytest.mark.parametrize("end", [float("nan"), 2, "no", None, [True, False]])
def test_an_end_that_is_no_flag_is_named(end):
    def step(answer):
        return *answer[:2], end, *answer[3:]

    with pytest.raises(EnvError, match="terminated is .*; allowed: one true or false"):
        stepped(make(Odd(step=step), horizon=10))
