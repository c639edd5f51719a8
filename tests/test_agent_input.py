"""Bad input to the agent is named: arguments, spaces, environments, steps, files."""

from __future__ import annotations

import attrs
import gymnasium
import numpy as np
import pytest
import torch

import cvpo
from cvpo import checkpoint
from cvpo.envs import make
from cvpo.errors import CheckpointError, ConfigError, EnvError
from cvpo.types import Transition
from tests.fakes import Line, line_agent

BOX = gymnasium.spaces.Box(-1.0, 1.0, (3,))
STEP = dict(
    obs=torch.zeros(1, 3),
    action=torch.zeros(1, 2),
    signals=torch.zeros(2, 1),
    next_obs=torch.zeros(1, 3),
    terminated=torch.tensor([False]),
    truncated=torch.tensor([False]),
)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(estep="newtn"), ConfigError, "unknown E-step solver 'newtn'; did you mean 'newton'"),
        (dict(critic={"name": "mlp", "memberz": 2}), ConfigError, "no option 'memberz'; did you mean 'members'"),
        (dict(batchsize=3), ConfigError, "no option 'batchsize'; did you mean 'batch_size'"),
        (dict(cost_limits=-1.0, horizon=9), ConfigError, r"cost_limits has -1.0; allowed: finite numbers >= 0"),
        (dict(cost_limits=float("nan"), horizon=9), ConfigError, "cost_limits has nan"),
        (dict(cost_limits=1.0), ConfigError, "horizon is None; an episode cost limit needs"),
        (
            dict(cost_limits=1.0, limit_kind="step", horizon_terminates=True),
            ConfigError,
            "horizon is None; limit_kind 'step' with horizon_terminates needs",
        ),
        (
            dict(states="replay", estep_batch=64, batch_size=32),
            ConfigError,
            "estep_batch is 64, more than the 32 of batch_size, which states=ReplayStates are taken from",
        ),
        (dict(cost_limits="25"), ConfigError, "cost_limits is '25'; allowed: a finite number >= 0, or a sequence"),
        (dict(cost_limits={"cost": 25.0}), ConfigError, "cost_limits is {'cost': 25.0}; allowed"),
        (dict(cost_limits=None), ConfigError, "cost_limits is None; allowed"),
        (dict(cost_limits=True), ConfigError, "cost_limits is True; allowed"),
        (dict(cost_limits=[[25.0]]), ConfigError, r"cost_limits is \[\[25.0\]\]; allowed"),
        (dict(num_envs=0), ConfigError, "num_envs is 0; allowed: an integer >= 1"),
        (dict(seed=-1), ConfigError, "seed is -1; allowed: an integer >= 0"),
        (dict(seed=2**70), ConfigError, "seed is 1180591620717411303424; allowed: an integer >= 0, below"),
        (dict(device="meta"), ConfigError, "device is 'meta', which has no random generator here; allowed: 'cpu'"),
        (dict(env="cvpo/Sprint-v0"), ConfigError, "env is 'cvpo/Sprint-v0'; allowed: an environment, such as"),
        (dict(device="foo"), ConfigError, "device is 'foo'; allowed: a device of torch"),
        (dict(mask_cost="no"), ConfigError, "AgentConfig.mask_cost is 'no'; allowed: True, False"),
        (dict(estep=3), ConfigError, "estep is 3, which has no solve; allowed: a name"),
        (dict(mstep={"name": "full", "kl": -1.0}), ConfigError, "Full.kl is -1.0; allowed"),
        (dict(gamma=1.0), ConfigError, r"AgentConfig.gamma is 1.0; allowed: a finite number > 0 and < 1"),
        (dict(limit_kind="epsiode"), ConfigError, "did you mean 'episode'"),
        (dict(policy="categorical"), ConfigError, "does not fit the action space"),
        (dict(mstep="full"), None, ""),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    if error is None:
        cvpo.make_agent(BOX, BOX, **arguments)
        return
    with pytest.raises(error, match=message):
        cvpo.make_agent(BOX, BOX, **arguments)


def test_unsupported_spaces_are_named():
    with pytest.raises(EnvError, match="MultiDiscrete.*allowed: a Box of floats with finite bounds, or Discrete"):
        cvpo.make_agent(BOX, gymnasium.spaces.MultiDiscrete([2, 3]))
    with pytest.raises(EnvError, match="unbounded"):
        cvpo.make_agent(BOX, gymnasium.spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(EnvError, match="observation space"):
        cvpo.make_agent(gymnasium.spaces.Graph(BOX, None), BOX)


def test_agent_and_environment_must_fit():
    agent, _ = line_agent(2)
    with pytest.raises(ConfigError, match="2 costs .* has 1"):
        agent.learn(10, env=make(lambda: Line(1), horizon=20))
    with pytest.raises(ConfigError, match="no environment"):
        cvpo.make_agent(BOX, BOX).learn(10)


def test_non_finite_steps_are_refused_before_they_are_stored():
    agent, _ = line_agent()
    for name in ("obs", "signals", "next_obs", "action"):
        bad = {**STEP, name: torch.full_like(STEP[name], torch.nan)}
        with pytest.raises(EnvError, match=f"transition.{name} has a non-finite value at step 0"):
            agent.observe(Transition(**bad))
    assert len(agent.store) == 0 and agent.steps == 0


def test_a_damaged_file_is_a_clear_error(tmp_path):
    agent, _ = line_agent()
    path = tmp_path / "agent.safetensors"
    agent.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        cvpo.load(path)
    path.write_bytes(content[:-10] + bytes(b ^ 1 for b in content[-10:]))
    with pytest.raises(CheckpointError, match="damaged"):
        cvpo.load(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        cvpo.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ({"action_space": None}, "it has no 'action_space'"),
        ({"num_envs": None}, "it has no 'num_envs'"),
        ({"observation_space": {"kind": "spaces"}}, "no space of the kind 'spaces'"),
        ({"config": [1]}, "does not describe an agent"),
    ],
)
def test_a_whole_file_of_something_else_is_a_clear_error(tmp_path, spoilt, message):
    path = tmp_path / "agent.safetensors"
    agent, _ = line_agent()
    agent.save(path)
    tree = {**checkpoint.read(path), **spoilt}
    checkpoint.write(path, {name: value for name, value in tree.items() if value is not None})
    with pytest.raises(CheckpointError, match=message):
        cvpo.load(path)


@pytest.mark.parametrize(
    "limits", [np.float32(5.0), np.int64(5), np.array(5.0), torch.tensor(5.0), [5], np.array([5.0])]
)
def test_a_limit_may_be_any_number(limits):
    agent, _ = line_agent(1, cost_limits=limits)
    assert agent.config.cost_limits == (5.0,)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (
            {"signals": torch.tensor([[7.0]])},
            r"transition.signals is shape \[1, 1\]; allowed: a tensor of shape \[2, 1\]",
        ),
        ({"obs": torch.zeros(1, 1)}, r"transition.obs is shape \[1, 1\]"),
        ({"action": np.zeros((1, 2))}, "transition.action is a ndarray; allowed: a tensor"),
        ({"terminated": torch.zeros(1)}, "transition.terminated is torch.float32; allowed: torch.bool"),
        ({"truncated": torch.tensor(False)}, r"transition.truncated is shape \[\]"),
    ],
)
def test_a_step_of_another_shape_is_an_error_and_never_broadcast(wrong, message):
    agent, _ = line_agent(1)
    with pytest.raises(EnvError, match=message):
        agent.observe(cvpo.Transition(**{**STEP, **wrong}))
    assert not len(agent.store)
    with pytest.raises(ConfigError, match="the buffer is empty"):
        agent.update()
    agent.observe(cvpo.Transition(**STEP))
    assert len(agent.store) == 1


def test_stores_do_not_broadcast_either():
    agent, _ = line_agent(1)
    with pytest.raises(ConfigError, match=r"signals to be stored has shape \[1, 1\]; allowed: \[1, 2\]"):
        agent.store.add(cvpo.Transition(**{**STEP, "signals": torch.zeros(1, 1)}))


def test_observations_that_cannot_be_acted_on_are_named():
    agent, _ = line_agent(1)
    with pytest.raises(EnvError, match="non-finite"):
        agent.predict(np.array([0.0, np.nan, 0.0], np.float32))
    with pytest.raises(ConfigError, match=r"obs has shape \[2, 5\]; allowed: \[N, 3\]"):
        agent.act(np.zeros((2, 5), np.float32))
    with pytest.raises(ConfigError, match=r"obs is 'left': .*; allowed: numbers \[N, 3\]"):
        agent.act("left")
    with pytest.raises(ConfigError, match=r"obs has shape \[3\]; allowed: \[N, 3\]"):
        agent.log_prob(torch.zeros(3), torch.zeros(1, 2))
    with pytest.raises(ConfigError, match=r"actions has shape \[4, 2\]; allowed: \[1, 2\]"):
        agent.log_prob(torch.zeros(1, 3), torch.zeros(4, 2))


def test_evaluation_takes_a_plain_environment():
    agent, _ = line_agent(1)
    assert cvpo.evaluate(agent, Line(), 2).returns.shape == (2,)


@pytest.mark.parametrize("steps", [-1, 1.5, True])
def test_learning_takes_a_number_of_steps(steps):
    agent, env = line_agent(1)
    with pytest.raises(ConfigError, match="total_steps is .*; allowed: an integer >= 0"):
        agent.learn(steps, env=env)


def test_what_is_no_observation_is_named() -> None:
    spaces = gymnasium.spaces
    agent = cvpo.make_agent(spaces.Discrete(5), BOX)
    assert agent.predict(3)[0].shape == BOX.shape
    with pytest.raises(EnvError, match="3 numbers for one"):
        agent.predict(np.array([0, 1, 2]))
    agent = cvpo.make_agent(spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Box(-1, 1, (1,))), BOX)
    with pytest.raises(EnvError, match="does not fit Dict"):
        agent.predict(np.zeros((1, 3)))
    with pytest.raises(EnvError, match="no observations in the batch"):
        line_agent()[0].predict(np.zeros((0, 3)))


def test_a_step_before_the_first_reset_is_named() -> None:
    with pytest.raises(EnvError, match="environment 0: a step before the first reset"):
        make("cvpo/Sprint-v0").step(np.zeros((1, 2), np.float32))


def test_an_update_makes_its_own_gradients() -> None:
    agents = [line_agent()[0] for _ in range(2)]
    for agent in agents:
        agent.learn(60, warmup_steps=60)
    with torch.no_grad():
        quiet = agents[0].update()
    for name, value in agents[1].update().items():
        assert torch.equal(quiet[name], value), name


def test_parts_say_what_they_must() -> None:
    @attrs.frozen
    class Silent:
        def threshold(self, q_cost, prior, limit, measured, gamma):
            return limit

    with pytest.raises(ConfigError, match="which has no measure"):
        cvpo.make_agent(BOX, BOX, limit=Silent())
    Silent.measure = "stepz"
    with pytest.raises(ConfigError, match="measure is 'stepz'; did you mean 'steps'"):
        cvpo.make_agent(BOX, BOX, limit=Silent())


def test_a_full_buffer_goes_into_one_of_its_own_size_only() -> None:
    def agent(capacity: int):
        return line_agent(1, buffer={"name": "uniform", "capacity": capacity})[0]

    full, half = agent(40), agent(100)
    full.learn(50, warmup_steps=50)
    half.learn(50, warmup_steps=50)
    with pytest.raises(CheckpointError, match="allowed: the same capacity, 40 transitions"):
        agent(100).load_state_dict(full.state_dict())
    larger = agent(200)
    larger.load_state_dict(half.state_dict())
    larger.learn(20, warmup_steps=100)
    assert np.isfinite(larger.store.ring.data["obs"][: len(larger.store)].numpy()).all() and len(larger.store) == 70
