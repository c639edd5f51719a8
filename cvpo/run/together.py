"""Runs that differ in their seed, trained as one population in one process: each leaves a run folder of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from cvpo.envs import Groups
from cvpo.errors import ConfigError
from cvpo.progress import Progress, Silent
from cvpo.run import folder as folders
from cvpo.run.config import RunConfig
from cvpo.run.folder import Lock
from cvpo.run.recorder import Recorder
from cvpo.run.session import Result, complete, signals
from cvpo.run.setting import build, resolved, setting
from cvpo.train import Loop
from cvpo.vector_agent import VectorAgent


def train_together(
    config: RunConfig, seeds: Sequence[int], paths: Sequence[Path], *, progress: Progress | None = None
) -> tuple[Result, ...]:
    """Train ``config`` with each of ``seeds`` in one batched update, and leave in ``paths`` what
    :func:`cvpo.run.train` leaves: P ordinary run folders, which can be evaluated, plotted and resumed one by one.

    Every run is what it would be alone, but for the order in which sums are rounded (:class:`cvpo.VectorAgent`).
    ``steps`` are those of each run, ``workers`` processes are for each run's environments. Raises ConfigError where
    seeds are equal, and what :func:`cvpo.run.train` raises.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds are {list(seeds)}; allowed: one or more, all different")
    configs = [attrs.evolve(config, seed=seed) for seed in seeds]
    for path in paths:
        folders.check_new(path)
    progress = progress or Silent()
    with contextlib.ExitStack() as stack:
        envs, eval_envs = zip(*(stack.enter_context(setting(each)) for each in configs), strict=True)
        agents = [build(each, env) for each, env in zip(configs, envs, strict=True)]
        loop = Loop(VectorAgent(agents), Groups(envs), config.schedule)
        made = [
            folders.create(path, resolved(each, agent).plain())
            for each, agent, path in zip(configs, agents, paths, strict=True)
        ]
        for folder in made:
            stack.callback(Lock(folder).close)
            progress.note(f"run folder {folder.path}")
        stack.callback(progress.stop)
        views = views_of(loop)
        recorders = [
            Recorder(each, folder, view.agent, eval_env, Spoken(progress, each.seed, index == 0))
            for index, (each, folder, view, eval_env) in enumerate(zip(configs, made, views, eval_envs, strict=True))
        ]
        for recorder in recorders:
            stack.callback(recorder.close)
        progress.start(0, config.steps)
        asked: list[int] = []

        def record(_: Loop) -> bool:
            # One look for all, and no end before each has been called: all have a checkpoint of the last step.
            for number in asked[:1]:
                for recorder in recorders:
                    recorder.stop(number)
            return all([recorder(view) for recorder, view in zip(recorders, views, strict=True)])

        with signals(asked.append):
            loop.run(config.steps, record)
        return tuple(complete(each) for each in recorders)


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
        state = self._shared.state_dict()
        return state | {"sum": None if state["sum"] is None else state["sum"][:, self._index].clone()}


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
