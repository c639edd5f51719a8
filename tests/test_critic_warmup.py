"""Updates of the critics alone, before the first E-step."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import cvpo
from cvpo.run import configure, resume, train
from tests.fakes import line_agent
from tests.populations import population, trained
from tests.run.helpers import SMALL, Interrupting, rows


def parameters(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()]).clone()


def test_the_first_updates_are_of_the_critics_alone() -> None:
    agent, env = line_agent(1, critic_warmup=5)
    cvpo.learn(agent, 40, env, warmup_steps=40)
    networks = {name: getattr(agent.learner, name) for name in ("policy", "old_policy", "critic", "target_critic")}
    before = {name: parameters(net) for name, net in networks.items()}
    for _ in range(5):
        metrics = agent.update()
        assert metrics and all(name.startswith("critic/") for name in metrics)
    moved = {name: not torch.equal(parameters(net), before[name]) for name, net in networks.items()}
    assert moved == {"policy": False, "old_policy": False, "critic": True, "target_critic": True}
    assert {"estep/eta", "mstep/guard_t"} <= agent.update().keys()
    assert not torch.equal(parameters(agent.policy), before["policy"])


def test_members_of_a_population_leave_their_policies_alone_as_long() -> None:
    vector, singles = population(1, critic_warmup=6)
    trained(vector, singles)  # the first four
    before = [parameters(single.policy) for single in singles]
    for _ in range(2):
        metrics, alone = vector.update(), [single.update() for single in singles]
        assert all(name.startswith("critic/") for name in metrics)
        for p, found in enumerate(alone):
            torch.testing.assert_close({name: value[p] for name, value in metrics.items()}, found)
    assert all(torch.equal(parameters(vector.member(p).policy), own) for p, own in enumerate(before))
    assert "estep/eta" in vector.update()
    assert not any(torch.equal(parameters(vector.member(p).policy), own) for p, own in enumerate(before))


def test_a_run_that_stops_among_them_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    # Means that are under way and a policy that has not been fitted yet are part of the checkpoint.
    options = {**SMALL, "seed": 3, "critic_warmup": 12}
    train(configure(**options), tmp_path / "whole")
    train(configure(**options), tmp_path / "parts", progress=Interrupting(260))
    resume(tmp_path / "parts")
    whole = rows(tmp_path / "whole" / "metrics.jsonl")
    assert rows(tmp_path / "parts" / "metrics.jsonl") == whole
    learned = [row for row in whole if row["updates"]]
    assert "estep/eta" not in learned[0] and "critic/loss" in learned[0]
    assert "estep/eta" in learned[-1]
