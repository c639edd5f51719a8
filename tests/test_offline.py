"""A data set in the layout of DSRL, written here, read back, and learned from."""

from __future__ import annotations

import sys

import attrs
import numpy as np
import pytest
import torch

from cvpo.buffers.dsrl import read
from cvpo.errors import ConfigError, DependencyError
from cvpo.offline import fill, own_actions
from tests.fakes import line_agent

h5py = pytest.importorskip("h5py")
STEPS = 101


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    ends = (np.arange(STEPS) + 1) % 10 == 0
    return {
        "observations": rng.normal(size=(STEPS, 3)),
        "next_observations": rng.normal(size=(STEPS, 3)),
        "actions": np.stack([rng.uniform(-2, 1, STEPS), rng.uniform(0, 10, STEPS)], 1),
        "rewards": np.arange(STEPS, dtype=np.float64),
        "costs": (rng.uniform(size=STEPS) < 0.3).astype(np.float64),
        "terminals": ends & (np.arange(STEPS) < 50),
        "timeouts": ends & (np.arange(STEPS) >= 50),
    }


def write(path, arrays) -> str:
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value
    return str(path)


def test_what_is_read_is_what_was_written(tmp_path, arrays) -> None:
    data = read(write(tmp_path / "data.hdf5", arrays))
    assert len(data) == STEPS and data.signals.shape == (2, STEPS) and data.obs.dtype == np.float32
    np.testing.assert_allclose(data.obs, arrays["observations"], rtol=1e-6)
    np.testing.assert_allclose(data.signals, np.stack([arrays["rewards"], arrays["costs"]]))
    assert data.terminated.sum() == 5 and data.truncated.sum() == 5


@pytest.mark.parametrize("envs", [1, 4])
def test_it_fills_the_replay_in_order_with_the_policys_own_actions(tmp_path, arrays, envs: int) -> None:
    data = read(write(tmp_path / "data.hdf5", arrays))
    agent, _ = line_agent(1, num_envs=envs, buffer={"name": "nstep", "steps": 3, "windows": True}, normalise_obs=True)
    kept = fill(agent, data)
    assert kept == STEPS // envs * envs == len(agent.store) and agent.steps == 0
    stored = agent.store.ring.data
    for i in (0, 17, kept - 1):
        env, t = divmod(i, STEPS // envs)
        np.testing.assert_allclose(stored["obs"][t, env], data.obs[i], rtol=1e-6)
        np.testing.assert_allclose(stored["step_signals"][t, env], data.signals[:, i])
        (action,) = agent.door.to_env(stored["action"][t, env][None].numpy())
        np.testing.assert_allclose(action, data.actions[i], rtol=1e-4)
    # Windows end with their episode, and with the piece that an environment was given.
    assert stored["done"][: kept // envs].sum() == {1: 11, 4: 12}[envs]
    assert data.truncated.sum() == 5
    metrics = agent.update()
    assert all(torch.isfinite(value).all() for value in metrics.values())
    np.testing.assert_allclose(agent.inputs.normaliser.mean, data.obs[:kept].mean(0), atol=1e-5)


def test_windows_of_the_agents_own_steps_do_not_reach_into_the_data(tmp_path, arrays) -> None:
    data = read(write(tmp_path / "data.hdf5", arrays))
    agent, _ = line_agent(1, buffer={"name": "nstep", "steps": 5})
    agent.learn(7, warmup_steps=7, callback=lambda loop: loop.agent.steps < 6)
    fill(agent, data)
    windows = agent.store.at(torch.arange(6))
    own = agent.store.ring.data["next_obs"][5, 0]
    torch.testing.assert_close(windows.next_obs[1:], own.expand(5, -1))


def test_a_store_that_cannot_extend_is_filled_step_by_step(tmp_path, arrays, monkeypatch) -> None:
    data = read(write(tmp_path / "data.hdf5", arrays))
    agents = [line_agent(1, num_envs=4)[0] for _ in range(2)]
    fill(agents[0], data)
    monkeypatch.delattr("cvpo.buffers.uniform.UniformStore.extend")
    fill(agents[1], data)
    one, other = (agent.store.state_dict()["data"] for agent in agents)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_discrete_actions_become_one_hot() -> None:
    from gymnasium.spaces import Discrete

    from cvpo.envs.spaces import ActionDoor

    door = ActionDoor(Discrete(3, start=5))
    assert own_actions(door, np.array([[5.0], [7.0]])).tolist() == [[1, 0, 0], [0, 0, 1]]
    for wrong in (4.0, 8.0, 5.5, np.nan):
        with pytest.raises(ConfigError, match=f"the data set has the action {wrong}; allowed: 5 to 7"):
            own_actions(door, np.array([[5.0], [wrong]]))


def test_a_dimension_without_width_has_one_action() -> None:
    from gymnasium.spaces import Box

    from cvpo.envs.spaces import ActionDoor

    door = ActionDoor(Box(np.array([-2.0, 3.0]), np.array([2.0, 3.0]), dtype=np.float64))
    assert own_actions(door, np.array([[1.0, 3.0]])).tolist() == [[0.5, 0.0]]


def test_a_data_set_made_by_hand_is_looked_at_too(tmp_path, arrays) -> None:
    data = read(write(tmp_path / "data.hdf5", arrays))
    agent, _ = line_agent(1)
    for spoilt, words in (
        (attrs.evolve(data, obs=np.nan * data.obs), "obs of the data set has values that are not finite"),
        (attrs.evolve(data, signals=data.signals[:, 1:]), "the data set has 100 signals for 101 obs; allowed"),
        ("data.hdf5", "data is a str; allowed: a Dataset"),
    ):
        with pytest.raises(ConfigError, match=words):
            fill(agent, spoilt)
    assert not len(agent.store)


def test_costs_may_be_left_out_and_need_not_be_there(tmp_path, arrays) -> None:
    without = {key: value for key, value in arrays.items() if key != "costs"}
    for index, given in enumerate((arrays, without)):
        data = read(write(tmp_path / f"{index}.hdf5", given), costs=False)
        agent, _ = line_agent(0)
        assert data.signals.shape == (1, len(data)) and fill(agent, data) == len(data)
        np.testing.assert_array_equal(data.signals[0], arrays["rewards"].astype(np.float32))
        agent.update()


def test_errors_name_what_is_wrong(tmp_path, arrays, monkeypatch) -> None:
    without = {key: value for key, value in arrays.items() if key != "costs"}
    with pytest.raises(ConfigError, match="has no costs; found .*, or costs=False"):
        read(write(tmp_path / "a.hdf5", without))
    with pytest.raises(ConfigError, match="arrays of lengths"):
        read(write(tmp_path / "b.hdf5", {**arrays, "rewards": arrays["rewards"][:-1]}))
    spoilt = arrays["rewards"].copy()
    spoilt[3] = np.nan
    with pytest.raises(ConfigError, match="rewards has 1 non-finite of 101 values"):
        read(write(tmp_path / "c.hdf5", {**arrays, "rewards": spoilt}))
    for key, value, words in (
        ("rewards", np.ones((len(arrays["rewards"]), 2)), r"rewards has shape \[101, 2\]; allowed: \[101\]"),
        ("terminals", np.full(len(arrays["rewards"]), np.nan), "terminals has 101 non-finite"),
        ("next_observations", arrays["next_observations"][:, :1], "as the size of next observations"),
        ("observations", 1e39 + arrays["observations"], "observations has 303 non-finite of 303 values"),
        ("timeouts", 0.5 * arrays["timeouts"], "timeouts has values other than 0 and 1; allowed: flags"),
        (
            "costs",
            np.array(["none"] * STEPS, dtype="S4"),
            r"costs is .* \[101\]; allowed: an array of numbers",
        ),
        ("rewards", np.float64(1.0), r"rewards is float64 of shape \[\]; allowed: an array of numbers"),
        ("actions", 7.0 + arrays["actions"], "the data set has 101 actions outside of Box"),
    ):
        with pytest.raises(ConfigError, match=words):
            fill(line_agent(1)[0], read(write(tmp_path / f"{key}.hdf5", {**arrays, key: value})))
    with pytest.raises(ConfigError, match="cannot be read as HDF5"):
        read(tmp_path / "missing.hdf5")
    agent, _ = line_agent(2)
    with pytest.raises(ConfigError, match="made for 2 costs .* the data set has 1"):
        fill(agent, read(write(tmp_path / "d.hdf5", arrays)))
    with pytest.raises(ConfigError, match=r"made for 0 costs .* has 1; allowed .* dsrl.read\(path, costs=False\)"):
        fill(line_agent(0)[0], read(write(tmp_path / "d.hdf5", arrays)))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DependencyError, match=r"pip install 'cvpo\[offline\]'"):
        read(tmp_path / "d.hdf5")
