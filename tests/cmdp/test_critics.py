"""Critics that learn from replayed transitions of a known process, against its true Q-values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cvpo import buffers, critics
from cvpo.critics.targets import bootstrap_of, td_targets
from cvpo.types import Spec, Transition
from tests.cmdp.model import Cmdp, random_cmdp

STEPS, ENVS, UPDATES = 400, 50, 1_200
CRITICS = {
    "mlp": {"hidden": (64,), "members": 1},
    "quantile": {"hidden": (64,), "members": 1, "huber": 0.05},
}
CASES = [("mlp", "uniform"), ("mlp", "nstep"), ("mlp", "prioritized"), ("quantile", "uniform")]


def replayed(cmdp: Cmdp, policy: np.ndarray, buffer: str):
    """A store of 20 000 transitions of ``policy``, one-hot observations and actions, no episode ever ended."""
    rng = np.random.default_rng(0)
    states, actions = policy.shape
    spec = Spec(states, actions, 2, cmdp.gamma)
    store = buffers.registry.create(buffer, capacity=STEPS * ENVS).build(
        spec, ENVS, torch.device("cpu"), torch.Generator().manual_seed(0)
    )
    state = rng.integers(states, size=ENVS)
    none = torch.zeros(ENVS, dtype=torch.bool)
    for _ in range(STEPS):
        action = (policy[state].cumsum(-1) > rng.uniform(size=(ENVS, 1))).argmax(-1)
        after = (cmdp.next[state, action].cumsum(-1) > rng.uniform(size=(ENVS, 1))).argmax(-1)
        signals = torch.from_numpy(cmdp.signals[:, state, action]).float()
        obs, one_hot, ahead = torch.eye(states)[state], torch.eye(actions)[action], torch.eye(states)[after]
        store.add(Transition(obs, one_hot, signals, ahead, none, none))
        state = after
    return store


@pytest.mark.parametrize(("name", "buffer"), CASES)
def test_critics_converge_to_the_true_q(name: str, buffer: str) -> None:
    """γ = 0.7 and on-policy data, so that n-step returns are unbiased; within 5 % of the range of Q."""
    known = random_cmdp(0, 1, single_start=False)
    cmdp = Cmdp(known.next, known.signals, known.start, 0.7)
    policy = 0.7 * np.random.default_rng(1).dirichlet(np.ones(3), size=8) + 0.1
    true = torch.from_numpy(cmdp.q_values(policy)).float()
    store = replayed(cmdp, policy, buffer)

    critic = critics.registry.create(name, **CRITICS[name])
    net, target_net = (critic.build(8, 3, 2, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    bootstrap, chances = bootstrap_of(critic), torch.from_numpy(policy.cumsum(-1)).float()
    generator = torch.Generator().manual_seed(2)
    every = torch.eye(3).expand(8, 3, 3)
    for step in range(UPDATES):
        optimiser.param_groups[0]["lr"] = 5e-3 * (1.0 - step / UPDATES)
        batch = store.sample(256)
        with torch.no_grad():
            draw = torch.rand(256, 1, generator=generator)
            actions = torch.eye(3)[(chances[batch.next_obs.argmax(-1)] > draw).int().argmax(-1)].unsqueeze(1)
            values = bootstrap(target_net, batch.next_obs, actions)
            target = td_targets(batch.signals, batch.discount, batch.terminated, values)
        loss, td = critic.loss(net, batch, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        store.reprioritise(batch.index, td)
        with torch.no_grad():
            torch._foreach_lerp_(list(target_net.parameters()), list(net.parameters()), 0.05)
    with torch.no_grad():
        found = critic.evaluate(net, torch.eye(8), every)
    span = true.amax((1, 2)) - true.amin((1, 2))
    worst = ((found - true).abs().amax((1, 2)) / span).tolist()
    print(f"{name}, {buffer}: largest error of Q_r and Q_c over their range {[round(x, 4) for x in worst]}")
    assert max(worst) < 0.05
