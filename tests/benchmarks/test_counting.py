"""The counter counts what it says, and the stages are told apart and undone."""

from __future__ import annotations

import torch

from benchmarks import updates_ours, updates_settings
from benchmarks.counting import Counter, live_tensors
from benchmarks.updates_stages import STAGES, stages

TINY = updates_settings.Setting(batch=16, particles=4, hidden=(8, 8), members=2, iterations=2)


def test_new_memory_is_counted_and_views_are_not() -> None:
    x = torch.ones(10, 20)
    with Counter() as counter:
        y = x.T.reshape(-1)[2:].unsqueeze(0)
        y.mul_(2.0)
        torch.split(y, 1, dim=1)
    assert counter.bytes["all"] == 4 * 200, counter.names  # the transpose is copied by reshape, once
    with Counter() as counter:
        torch.add(x, x)
        torch.unbind(x)
    assert (counter.operations["all"], counter.bytes["all"]) == (2, 800), counter.names


def test_the_backward_pass_is_seen() -> None:
    weight = torch.ones(3, 3, requires_grad=True)
    loss = (torch.ones(2, 3) @ weight).sum()
    with Counter() as counter:
        loss.backward()
    assert counter.names["all", "mm"] == 1, counter.names


def test_synchronisations_are_seen() -> None:
    x = torch.ones(3)
    with Counter() as counter:
        for read in (torch.Tensor.item, float, bool):
            read(x[0])
        x.tolist(), x.numpy(), x[x > 0], torch.equal(x, x)
    assert counter.syncs["all"] == 7, counter.names


def test_counts_belong_to_the_stage_that_runs() -> None:
    names = ["a"]
    with Counter(lambda: names[-1]) as counter:
        torch.ones(1)
        names.append("b")
        torch.ones(1), torch.ones(1)
    assert counter.operations == {"a": 1, "b": 2}


def test_live_tensors_sees_what_is_kept_and_shared_memory_once() -> None:
    number, size = live_tensors()
    kept = [torch.zeros(100)]
    kept.append(kept[0].view(10, 10))
    assert live_tensors() == (number + 2, size + 400)


def test_every_stage_of_an_update_is_found_and_nothing_stays_behind() -> None:
    agent = updates_ours.make(TINY, count=600)
    before = [dict(vars(each)) for each in (type(agent.learner), type(agent.store), type(agent.config.fit))]
    with stages(agent) as stage, Counter(stage.name) as counter:
        for _ in range(10):
            agent.update()
    missing = [name for name in STAGES if name not in ("guard", "rest") and not counter.operations[name]]
    assert not missing, f"no operations in {missing}: has a place in benchmarks/updates_stages.py been renamed?"
    assert set(stage.seconds) <= set(STAGES)
    assert before == [dict(vars(each)) for each in (type(agent.learner), type(agent.store), type(agent.config.fit))]
    assert "forward" not in vars(agent.learner.old_policy)
