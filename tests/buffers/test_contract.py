"""The public contract holds for every registered buffer, and fails for every deliberately wrong one."""

from __future__ import annotations

import attrs
import pytest
import torch

from cvpo import buffers
from cvpo.buffers.nstep import NStepBuffer
from cvpo.buffers.nstep_store import NStepStore
from cvpo.buffers.prioritized import PrioritizedBuffer, PrioritizedStore
from cvpo.buffers.uniform import UniformBuffer, UniformStore
from cvpo.buffers.windows import WindowStore
from cvpo.cli import main
from cvpo.testing import check_buffer


@pytest.mark.parametrize("name", buffers.registry.names())
def test_every_registered_buffer_keeps_the_contract(name: str) -> None:
    check_buffer(buffers.registry.create(name), examples=15)


@pytest.mark.parametrize(
    "buffer", [PrioritizedBuffer(steps=4, alpha=1.0), PrioritizedBuffer(windows=True), NStepBuffer(windows=True)]
)
def test_other_windows_keep_it_too(buffer) -> None:
    check_buffer(buffer, examples=15)


class OneTooOld(UniformStore):
    """One row more than is written: one that was never written, or the row after the last."""

    def sample(self, size):
        index = torch.randint((self.ring.filled + 1) * self.ring.num_envs, (size,), generator=self.generator)
        return self.at(index % (self.ring.rows * self.ring.num_envs))


class NeverTheNewest(UniformStore):
    """The row before in place of the newest, where there is one."""

    def sample(self, size):
        index, envs = self.ring.draw(size, self.generator), self.ring.num_envs
        before = (index - envs) % (self.ring.rows * envs)
        newest = (index // envs == self.ring.newest) & (self.ring.filled > 1)
        return self.at(torch.where(newest, before, index))


class AcrossEpisodes(NStepStore):
    """Windows that go on into the next episode."""

    def stored(self, transition):
        never = torch.zeros_like(transition.truncated)
        return {**super().stored(transition), "done": never}


class ThroughTermination(UniformStore):
    """Terminations stored as truncations, so that targets bootstrap through them."""

    def at(self, index, weight=None):
        batch = super().at(index, weight)
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


class NoWeights(PrioritizedStore):
    """Drawn by priority, and the critic's loss not told."""

    def sample(self, size):
        batch = super().sample(size)
        return attrs.evolve(batch, weight=torch.ones_like(batch.weight))


class ClippedActions(UniformStore):
    """What the environment executed in place of what the policy drew."""

    def at(self, index, weight=None):
        batch = super().at(index, weight)
        return attrs.evolve(batch, action=batch.action.clamp(-1.0, 1.0))


class FirstReward(NStepStore):
    """The first step's signals for those of the window."""

    def __init__(self, *args):
        super().__init__(*args)
        self._shares[..., :-1] = 0.0


class EndIgnored(NStepStore):
    """Windows that go on after the stream broke off."""

    def end(self):
        pass


class ExtendForgets(NStepStore):
    """Many steps at once, each a window of its own."""

    def _grow_many(self, kept, earlier):
        pass


class EmptyWindows(WindowStore):
    """Windows whose single steps have no signals."""

    def window(self, data, index):
        window = super().window(data, index)
        return attrs.evolve(window, signals=torch.zeros_like(window.signals))


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
        kinds = {
            PrioritizedStore: PrioritizedBuffer(capacity=self.capacity),
            WindowStore: NStepBuffer(capacity=self.capacity, windows=True),
            NStepStore: NStepBuffer(capacity=self.capacity),
            UniformStore: UniformBuffer(capacity=self.capacity),
        }
        config = next(config for store, config in kinds.items() if issubclass(self.store, store))
        return self.store(config, spec, num_envs, device, generator)


class Double(UniformStore):
    """Observations in double precision, which no network takes."""

    def at(self, index, weight=None):
        batch = super().at(index, weight)
        return attrs.evolve(batch, obs=batch.obs.double())


WRONG = {
    Double: "obs is torch.float64; allowed: torch.float32",
    OneTooOld: "never written|overwritten or never added|NaN|not what was added|goes on after",
    NeverTheNewest: "never drawn",
    AcrossEpisodes: "crosses the end of an episode",
    ThroughTermination: "terminated is not that of the window's last step",
    TruncationTerminates: "terminated is not that of the window's last step",
    RawWeights: "the largest weight is",
    NoWeights: "a step drawn [0-9]+ times weighs",
    ClippedActions: "action is not what was added",
    EndIgnored: "goes on beyond end",
    ExtendForgets: "otherwise than one by one",
    EmptyWindows: "window.signals are not those of step",
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
