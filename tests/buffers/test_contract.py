"""The public contract holds for every registered buffer, and fails for every deliberately wrong one."""

from __future__ import annotations

import attrs
import pytest
import torch

from cvpo import buffers
from cvpo.buffers.nstep import NStepStore
from cvpo.buffers.prioritized import PrioritizedBuffer, PrioritizedStore
from cvpo.buffers.uniform import UniformStore, stored
from cvpo.cli import main
from cvpo.testing import check_buffer


@pytest.mark.parametrize("name", buffers.registry.names())
def test_every_registered_buffer_keeps_the_contract(name: str) -> None:
    check_buffer(buffers.registry.create(name), examples=15)


def test_prioritised_windows_keep_it_too() -> None:
    check_buffer(PrioritizedBuffer(steps=4, alpha=1.0), examples=15)


class OneTooOld(UniformStore):
    """Ages up to the number of rows: one row that is overwritten, or was never written."""

    def sample(self, size):
        count = (self.ring.filled + 1) * self.ring.num_envs
        draw = torch.randint(count, (size,), generator=self.generator)
        return self.at(draw // self.ring.num_envs, draw % self.ring.num_envs)


class NeverTheNewest(UniformStore):
    """Ages from 1 on."""

    def sample(self, size):
        age, env = self.ring.ages(size, self.generator)
        return self.at(age.clamp(min=min(1, self.ring.filled - 1)), env)


class AcrossEpisodes(NStepStore):
    """Windows that go on into the next episode."""

    def add(self, transition):
        self.ring.add(**{**stored(transition), "done": torch.zeros_like(transition.truncated)})


class ThroughTermination(UniformStore):
    """Terminations stored as truncations, so that targets bootstrap through them."""

    def at(self, age, env):
        batch = super().at(age, env)
        return attrs.evolve(batch, terminated=torch.zeros_like(batch.terminated))


class TruncationTerminates(UniformStore):
    """What older interfaces call done."""

    def add(self, transition):
        super().add(attrs.evolve(transition, terminated=transition.terminated | transition.truncated))


class RawWeights(PrioritizedStore):
    """1/(N P) as it is."""

    def sample(self, size):
        batch = super().sample(size)
        chance = self.tree.levels[0][batch.index] / self.tree.total
        return attrs.evolve(batch, weight=(1.0 / (len(self) * chance)).float())


class FirstReward(NStepStore):
    """The first step's signals for those of the window."""

    def at(self, age, env):
        return attrs.evolve(super().at(age, env), signals=UniformStore.at(self, age, env).signals)


class Forgetful(PrioritizedStore):
    """Priorities left out of the state."""

    def load_state_dict(self, state):
        super().load_state_dict({**state, "priorities": torch.ones_like(state["priorities"])})


@attrs.frozen
class Wrong:
    """A buffer that builds a wrong store."""

    store: type
    capacity: int = 1000

    def build(self, spec, num_envs, device, generator):
        if issubclass(self.store, PrioritizedStore):
            config = PrioritizedBuffer(capacity=self.capacity)
            return self.store(config, spec, num_envs, device, generator)
        steps = (3,) if issubclass(self.store, NStepStore) else ()
        return self.store(*steps, self.capacity, spec, num_envs, device, generator)


WRONG = {
    OneTooOld: "never written|overwritten or never added|NaN|not what was added|goes on after",
    NeverTheNewest: "never drawn",
    AcrossEpisodes: "crosses the end of an episode",
    ThroughTermination: "terminated is not that of the window's last step",
    TruncationTerminates: "terminated is not that of the window's last step",
    RawWeights: "the largest weight is",
    FirstReward: "signals are not the discounted sum over the window",
    Forgetful: "a restored store samples otherwise",
}


@pytest.mark.parametrize("store", WRONG, ids=lambda store: store.__name__)
def test_wrong_buffers_are_caught(store: type) -> None:
    with pytest.raises(AssertionError, match=WRONG[store]):
        check_buffer(Wrong(store), examples=15)


def test_right_ones_pass_in_the_same_frame() -> None:
    """What is caught above is the fault, not the frame."""
    for store in (UniformStore, NStepStore, PrioritizedStore):
        check_buffer(Wrong(store), examples=5)


def test_the_command_line_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "buffer", "nstep", "steps=2", "--examples", "3"]) == 0
    assert "passed  every stored step can be drawn, and no other" in capsys.readouterr().out
