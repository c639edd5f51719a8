"""Training in a run folder: from a configuration, or on from the newest checkpoint, bit for bit the same."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from cvpo.errors import ConfigError, RunError, fitting
from cvpo.logs import read_rows
from cvpo.progress import Progress, Silent
from cvpo.run import folder as folders
from cvpo.run.config import RunConfig, to_json
from cvpo.run.folder import Lock, RunFolder
from cvpo.run.measure import Score
from cvpo.run.recorder import Recorder
from cvpo.run.setting import build, constrained, load_config, resolved, setting
from cvpo.train import Loop


@attrs.frozen(kw_only=True)
class Result:
    """What a run came to: ``scores`` of the policy's mode, its samples, and random actions, in this order.

    ``stopped`` is the number of the signal that ended it early (then there are no scores), None where it is complete.
    """

    folder: Path
    steps: int
    updates: int
    scores: tuple[Score, ...] = ()
    stopped: int | None = None


def train(
    config: RunConfig, folder: str | os.PathLike[str] | None = None, *, progress: Progress | None = None
) -> Result:
    """Train an agent as ``config`` says and leave everything in a new run folder (None: under ``runs/``).

    Raises RunError where the folder exists, ConfigError and EnvError where the configuration cannot be used (no folder
    is made then), and whatever of CvpoError ends the training; what was saved until then stays.
    """
    path = folders.default_path(config) if folder is None else Path(folder)
    folders.check_new(path)
    with setting(config) as (env, eval_env):
        # Everything that can be wrong with the configuration is found before there is a folder.
        loop = Loop(build(config, env), env, config.schedule)
        with folders.created(path, resolved(config, loop.agent).plain()) as made:
            return _run(config, made, loop, eval_env, progress or Silent(), resume=False)


def resume(folder: str | os.PathLike[str], *, steps: int | None = None, progress: Progress | None = None) -> Result:
    """Go on with the run in ``folder`` from its newest whole checkpoint, to its own number of steps or to ``steps``.

    Metrics (but for ``time/``) and parameters are those of a run that was never stopped, on the same machine with the
    same versions and number of threads. Beyond its own number of steps a run is not the beginning of a longer one: its
    learning rates had fallen, and its windows of several steps ended. Without any checkpoint the run starts again.
    Raises RunError where ``folder`` is no run folder, is in use, or has lost its checkpoints, CheckpointError where it
    has some and none of them is whole.
    """
    made = RunFolder(Path(folder))
    config = reopen(made, steps)
    with setting(config) as (env, eval_env), contextlib.closing(Lock(made)):
        loop = Loop(build(config, env), env, config.schedule)
        return _run(config, made, loop, eval_env, progress or Silent(), resume=True)


def _run(
    config: RunConfig, folder: RunFolder, loop: Loop, eval_env: Any, progress: Progress, *, resume: bool
) -> Result:
    agent = loop.agent
    with contextlib.ExitStack() as stack:
        stack.callback(progress.stop)
        announce([folder], config, progress)
        saved = _restore(folder, config, loop, progress) if resume else None
        check_steps(folder, config.steps, agent.steps)
        recorder = Recorder(config, folder, agent, eval_env, progress, saved)
        stack.callback(recorder.close)
        prolong(folder, config.steps)
        progress.start(agent.steps, config.steps)
        with signals(recorder.stop):
            loop.run(config.steps, recorder)
        return complete(recorder)


def announce(folders: Sequence[RunFolder], config: RunConfig, progress: Progress) -> None:
    """Where the runs go; and whether anything is constrained, which nothing else in a run says."""
    for folder in folders:
        progress.note(f"run folder {folder.path}")
    if not constrained(config):
        progress.note("no cost limits: costs are not constrained (--cost-limits sets them)")


def reopen(folder: RunFolder, steps: int | None) -> RunConfig:
    """The configuration to go on with, to ``steps`` if given; a warning for each version that has changed."""
    config = load_config(folder)
    for change in folders.changed_versions(folder):
        warnings.warn(f"the run may not continue bit for bit: {change}", stacklevel=3)
    return config if steps is None else attrs.evolve(config, steps=steps)


def check_steps(folder: RunFolder, steps: int, done: int) -> None:
    """Raises ConfigError where more than ``steps`` are ``done``."""
    if steps < done:
        raise ConfigError(f"steps is {steps}, and run {folder.path} has {done} already; allowed: {done} or more")


def prolong(folder: RunFolder, steps: int) -> None:
    """Let the run's configuration say ``steps``, once everything else is as it must be to go on."""
    if steps != folder.options().get("steps"):
        folders.write_text(folder.config, to_json({**folder.options(), "steps": steps}))


def complete(recorder: Recorder, together: int = 1) -> Result:
    """How a run ended, written to its folder where it is complete, with how many runs were ``together`` in the process
    that ended it."""
    folder, agent = recorder.folder, recorder.agent
    scores = recorder.final() if recorder.stopped is None else ()
    result = Result(
        folder=folder.path, steps=agent.steps, updates=agent.updates, scores=scores, stopped=recorder.stopped
    )
    if scores:
        scored = [each.plain() for each in scores]
        plain = {"steps": result.steps, "updates": result.updates, "together": together, "scores": scored}
        folders.write_text(folder.result, json.dumps(plain, indent=2) + "\n")
    return result


def _restore(folder: RunFolder, config: RunConfig, loop: Loop, progress: Progress) -> Any:
    """Bring the loop to the newest whole checkpoint; the recorder's part of it, None where none was written yet."""
    checkpoints = folder.checkpoints(config.keep_checkpoints)
    if not checkpoints.files():
        check_restart(folder, config)
        progress.note(f"{folder.path} has no checkpoint yet; starting again")
        return None
    step, tree = checkpoints.newest(warn=progress.note)
    with fitting(misfit(folder, step)):
        loop.agent.load_state_dict(tree["agent"])
        loop.load_state_dict(tree["loop"])
        return tree["recorder"]


def check_restart(folder: RunFolder, config: RunConfig) -> None:
    """Raises RunError where a run has no checkpoint but was beyond its first: to start again would drop its rows."""
    rows = read_rows(folder.metrics) if folder.metrics.exists() else []
    done = rows[-1]["step"] if rows else 0
    # The row of a step is written before its checkpoint, and a run may be killed in between.
    if folder.result.exists() or 0 < config.checkpoint_every <= done - config.num_envs:
        found = f"{len(rows)} rows of metrics, to step {done}, and no checkpoint to go on from"
        raise RunError(f"{folder.path} has {found}; allowed: put its checkpoints back, or train in a new folder")


def misfit(folder: RunFolder, step: int) -> str:
    """What is wrong where the checkpoint of ``folder`` at ``step`` cannot be taken over."""
    return f"the checkpoint of {folder.path} at step {step} does not fit its configuration"


@contextlib.contextmanager
def signals(stop: Callable[[int], None]) -> Iterator[None]:
    """SIGINT and SIGTERM end the run by ``stop(number)``, after a step and with a checkpoint; a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, frame: Any) -> None:
        stop(number)
        for each in numbers:
            signal.signal(each, before[each])

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
