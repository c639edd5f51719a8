"""Runs that differ in their seed, trained as one population in one process: each leaves a run folder of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from cvpo.envs import Groups
from cvpo.errors import CheckpointError, ConfigError, fitting
from cvpo.progress import Progress, Silent
from cvpo.run import folder as folders
from cvpo.run.config import RunConfig
from cvpo.run.folder import Lock, RunFolder
from cvpo.run.members import Spoken, views_of
from cvpo.run.recorder import Recorder
from cvpo.run.session import (
    Result,
    announce,
    check_restart,
    check_steps,
    complete,
    misfit,
    prolong,
    reopen,
    signals,
)
from cvpo.run.setting import build, resolved, setting
from cvpo.train import Loop
from cvpo.vector_agent import VectorAgent


def train_together(
    config: RunConfig,
    seeds: Sequence[int],
    paths: Sequence[str | os.PathLike[str]],
    *,
    progress: Progress | None = None,
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
    wanted = [Path(path) for path in paths]
    for path in wanted:
        folders.check_new(path)
    with _population(configs) as (loop, eval_envs), contextlib.ExitStack() as held:
        made = [
            held.enter_context(folders.created(path, resolved(each, agent).plain()))
            for each, agent, path in zip(configs, loop.agent.agents, wanted, strict=True)
        ]
        return _run(configs, made, loop, eval_envs, progress or Silent(), resume=False)


def resume_together(
    paths: Sequence[str | os.PathLike[str]], *, steps: int | None = None, progress: Progress | None = None
) -> tuple[Result, ...]:
    """Go on with the runs in ``paths`` as one population, from the newest checkpoint that all of them have.

    They come out as if :func:`train_together` had never been stopped, bit for bit, under the conditions of
    :func:`cvpo.run.resume`, and raises what that raises; ConfigError where they differ in more than their seed.
    """
    made = [RunFolder(Path(path)) for path in paths]
    for index, folder in enumerate(made):
        if any(folder.path.resolve() == other.path.resolve() for other in made[:index]):
            raise ConfigError(f"{folder.path} is given twice; allowed: every run once")
    configs = [reopen(folder, steps) for folder in made]
    for folder, config in zip(made[1:], configs[1:], strict=True):
        for field in attrs.fields(RunConfig):
            ours, theirs = (getattr(each, field.name) for each in (configs[0], config))
            if field.name != "seed" and ours != theirs:
                raise ConfigError(
                    f"{field.name} is {ours!r} in {made[0].path} and {theirs!r} in {folder.path}; allowed in a "
                    "population: one for all, but for the seed"
                )
    with _population(configs) as (loop, eval_envs), contextlib.ExitStack() as held:
        for folder in made:
            held.enter_context(contextlib.closing(Lock(folder)))
        return _run(configs, made, loop, eval_envs, progress or Silent(), resume=True)


@contextlib.contextmanager
def _population(configs: Sequence[RunConfig]) -> Iterator[tuple[Loop, tuple[Any, ...]]]:
    """The loop of one agent for each of ``configs``, and the environments to evaluate them in."""
    with contextlib.ExitStack() as stack:
        envs, eval_envs = zip(*(stack.enter_context(setting(each)) for each in configs), strict=True)
        agents = [build(each, env) for each, env in zip(configs, envs, strict=True)]
        yield Loop(VectorAgent(agents), Groups(envs), configs[0].schedule), eval_envs


def _run(
    configs: Sequence[RunConfig],
    made: Sequence[RunFolder],
    loop: Loop,
    eval_envs: Sequence[Any],
    progress: Progress,
    *,
    resume: bool,
) -> tuple[Result, ...]:
    steps = configs[0].steps
    with contextlib.ExitStack() as stack:
        stack.callback(progress.stop)
        announce(made, configs[0], progress)
        saved = _restore(configs, made, loop, progress) if resume else [None] * len(made)
        for folder in made:
            check_steps(folder, steps, loop.agent.steps)
        views = views_of(loop)
        recorders = [
            Recorder(each, folder, view.agent, eval_env, Spoken(progress, each.seed, index == 0), state)
            for index, (each, folder, view, eval_env, state) in enumerate(
                zip(configs, made, views, eval_envs, saved, strict=True)
            )
        ]
        for recorder in recorders:
            stack.callback(recorder.close)
            prolong(recorder.folder, steps)
        progress.start(loop.agent.steps, steps)
        asked: list[int] = []

        def record(_: Loop) -> bool:
            # One look for all, and no end before each has been called: all have a checkpoint of the last step.
            for number in asked[:1]:
                for recorder in recorders:
                    recorder.stop(number)
            return all([recorder(view) for recorder, view in zip(recorders, views, strict=True)])

        with signals(asked.append):
            loop.run(steps, record)
        return tuple(complete(each, len(recorders)) for each in recorders)


def _restore(configs: Sequence[RunConfig], made: Sequence[RunFolder], loop: Loop, progress: Progress) -> list[Any]:
    """Bring the loop to the newest checkpoint that is whole in every folder; the recorders' parts of it, or None of
    each where none was written yet."""
    checkpoints = [folder.checkpoints(each.keep_checkpoints) for folder, each in zip(made, configs, strict=True)]
    steps = [[step for step, _ in each.files()] for each in checkpoints]
    if not any(steps):
        for folder, each in zip(made, configs, strict=True):
            check_restart(folder, each)
        progress.note("no run has a checkpoint yet; starting again")
        return [None] * len(made)
    for step in sorted(set.intersection(*map(set, steps)), reverse=True):
        try:
            trees = [each.at(step) for each in checkpoints]
        except CheckpointError as error:
            progress.note(f"{error}; trying the one before it")
            continue
        with fitting(misfit(made[0], step)):
            loop.agent.load_state_dict({"members": [tree["agent"] for tree in trees]})
            loop.load_member_states([tree["loop"] for tree in trees])
            return [tree["recorder"] for tree in trees]
    found = ", ".join(f"{folder.path}: {own}" for folder, own in zip(made, steps, strict=True))
    raise CheckpointError(f"no step has a whole checkpoint in every run ({found}); resume them one by one")
