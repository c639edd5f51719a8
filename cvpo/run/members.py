"""The members of a population, each as a recorder sees the agent and the loop of a run alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cvpo.progress import Progress
from cvpo.train import Loop
from cvpo.vector_agent import VectorAgent


class Member:
    """A member of a population as its recorder sees an agent: acting and statistics are its own, its state is a copy
    out of the stack."""

    def __init__(self, population: VectorAgent, index: int) -> None:
        self._population, self._index = population, index

    def __getattr__(self, name: str) -> Any:
        return getattr(self._population.agents[self._index], name)

    @property
    def updates(self) -> int:
        return self._population.updates

    def state_dict(self) -> dict[str, Any]:
        return self._population.member_state(self._index)


class View:
    """The loop of a population as the recorder of one member sees it."""

    def __init__(self, loop: Loop, index: int, means: MemberMeans) -> None:
        self._loop, self._index, self.means = loop, index, means
        self.agent: Any = Member(loop.agent, index)

    @property
    def finished(self) -> list[Any]:
        """The episodes of this member that the last step ended."""
        return self._loop.finished[self._index]

    def state_dict(self) -> dict[str, Any]:
        """What the loop of this member alone would have: see :meth:`cvpo.train.Loop.state_dict`."""
        return self._loop.member_state(self._index) | {"means": self.means.state_dict()}


class MemberMeans:
    """One member's part of the means that a population shares: who takes first takes for all."""

    def __init__(self, shared: Any, index: int, taken: dict[int, dict[str, Any]], count: int) -> None:
        self._shared, self._index, self._taken, self._count = shared, index, taken, count

    def take(self) -> dict[str, Any]:
        """The means of this member since its last call."""
        if self._index not in self._taken:
            values = self._shared.take()
            self._taken.update({p: {name: each[p] for name, each in values.items()} for p in range(self._count)})
        return self._taken.pop(self._index)

    def state_dict(self) -> dict[str, Any]:
        """That of the means of this member alone."""
        return self._shared.member_state(self._index)


class Spoken:
    """What one run of several tells: its notes with its seed; ``leads`` also moves the progress."""

    def __init__(self, progress: Progress, seed: int, leads: bool) -> None:
        self._progress, self._seed, self._leads = progress, seed, leads

    def start(self, step: int, total: int) -> None:
        """The population has started it."""

    def figures(self, returned: float | None, costs: Sequence[float | None], limits: Sequence[float]) -> None:
        if self._leads:
            self._progress.figures(returned, costs, limits)

    def step(self, step: int) -> None:
        if self._leads:
            self._progress.step(step)

    def note(self, text: str) -> None:
        self._progress.note(f"seed {self._seed}: {text}")

    def stop(self) -> None:
        """The population stops it."""


def views_of(loop: Loop) -> list[Any]:
    """The loop of a population, by member."""
    count = len(loop.agent)
    taken: dict[int, dict[str, Any]] = {}
    return [View(loop, index, MemberMeans(loop.means, index, taken, count)) for index in range(count)]
