"""Training in a run folder: from a configuration, or on from the newest checkpoint, bit for bit the same."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from cvpo.errors import CheckpointError, RunError
from cvpo.progress import Progress, Silent
from cvpo.run import folder as folders
from cvpo.run.config import RunConfig, to_json
from cvpo.run.folder import Lock, RunFolder
from cvpo.run.measure import Score
from cvpo.run.recorder import Recorder
from cvpo.run.setting import build, load_config, resolved, setting
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
        made = folders.create(path, resolved(config, loop.agent).plain())
        return _run(config, made, loop, eval_env, progress or Silent(), resume=False)


def resume(
    folder: str | os.PathLike[str], *, steps: int | None = None, progress: Progress | None = None
) -> Result:
    """Go on with the run in ``folder`` from its newest whole checkpoint, to its own number of steps or to ``steps``.

    Metrics (but for ``time/``) and parameters are those of a run that was never stopped, on the same machine with the
    same versions and number of threads. Without any checkpoint the run starts again. Raises RunError where ``folder``
    is no run folder or is in use, CheckpointError where it has checkpoints and none of them is whole.
    """
    made = RunFolder(Path(folder))
    config = load_config(made)
    if steps is not None:
        config = attrs.evolve(config, steps=steps)
    for change in folders.changed_versions(made):
        warnings.warn(f"the run may not continue bit for bit: {change}", stacklevel=2)
    with setting(config) as (env, eval_env):
        loop = Loop(build(config, env), env, config.schedule)
        return _run(config, made, loop, eval_env, progress or Silent(), resume=True)


def _run(
    config: RunConfig, folder: RunFolder, loop: Loop, eval_env: Any, progress: Progress, *, resume: bool
) -> Result:
    agent, recorder = loop.agent, None
    lock = Lock(folder)
    progress.note(f"run folder {folder.path}")
    try:
        saved = _newest(folder, config, progress) if resume else None
        if saved is not None:
            agent.load_state_dict(saved["agent"])
            loop.load_state_dict(saved["loop"])
        if config.steps < agent.steps:
            raise RunError(f"run {folder.path} has {agent.steps} steps already; allowed: --steps {agent.steps} or more")
        if resume and config.steps != folder.options().get("steps"):
            folders.write_text(folder.config, to_json({**folder.options(), "steps": config.steps}))
        recorder = Recorder(config, folder, agent, eval_env, progress, saved["recorder"] if saved else None)
        progress.start(agent.steps, config.steps)
        with _signals(recorder):
            loop.run(config.steps, recorder)
        if recorder.stopped is not None:
            return Result(folder=folder.path, steps=agent.steps, updates=agent.updates, stopped=recorder.stopped)
        scores = recorder.final()
        result = Result(folder=folder.path, steps=agent.steps, updates=agent.updates, scores=scores)
        plain = {"steps": result.steps, "updates": result.updates, "scores": [score.plain() for score in scores]}
        folders.write_text(folder.result, json.dumps(plain, indent=2) + "\n")
        return result
    except OSError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"run folder {folder.path} could not be written: {error.strerror or error}") from error
    finally:
        progress.stop()
        if recorder is not None:
            recorder.close()
        lock.close()


def _newest(folder: RunFolder, config: RunConfig, progress: Progress) -> Any:
    """The newest whole checkpoint, None where none was written yet."""
    checkpoints = folder.checkpoints(config.keep_checkpoints)
    if not checkpoints.files():
        progress.note(f"{folder.path} has no checkpoint yet; starting again")
        return None
    _, tree = checkpoints.newest(warn=progress.note)
    if not isinstance(tree, dict) or not {"agent", "loop", "recorder"} <= set(tree):
        raise CheckpointError(f"the newest checkpoint of {folder.path} is not that of a run")
    return tree


@contextlib.contextmanager
def _signals(recorder: Recorder) -> Iterator[None]:
    """SIGINT and SIGTERM end the run after the step under way, with a checkpoint; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, frame: Any) -> None:
        recorder.stop(number)
        for each in numbers:
            signal.signal(each, before[each])

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
