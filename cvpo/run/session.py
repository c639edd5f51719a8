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
import torch

from cvpo import envs
from cvpo.agent import CVPO
from cvpo.assembly import describe, make_agent
from cvpo.errors import CheckpointError, RunError
from cvpo.progress import Progress, Silent
from cvpo.run import folder as folders
from cvpo.run.config import RunConfig, from_options, to_json
from cvpo.run.folder import Lock, RunFolder
from cvpo.run.measure import Score
from cvpo.run.recorder import Recorder
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
    with _setting(config) as (env, eval_env):
        agent = build(config, env)
        made = folders.create(path, resolved(config, agent, env).plain())
        return _run(config, made, agent, env, eval_env, progress or Silent(), resume=False)


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
    with _setting(config) as (env, eval_env):
        agent = build(config, env)
        return _run(config, made, agent, env, eval_env, progress or Silent(), resume=True)


def load_config(folder: RunFolder) -> RunConfig:
    """The configuration that a run was made with. Raises RunError where ``folder`` is no run folder."""
    return from_options(folder.options())


def build(config: RunConfig, env: Any) -> CVPO:
    """The agent of a run."""
    return make_agent(
        env.observation_space,
        env.action_space,
        horizon=env.horizon,
        num_envs=config.num_envs,
        seed=config.seed,
        device=config.device,
        **config.agent,
    )


def resolved(config: RunConfig, agent: CVPO, env: Any) -> RunConfig:
    """``config`` with everything explicit that environment and agent filled in."""
    parts = describe(agent.config)
    keys = config.cost_keys if not agent.config.cost_limits else tuple(env.cost_names)
    return attrs.evolve(
        config,
        horizon=env.horizon,
        cost_keys=keys,
        agent={name: value for name, value in parts.items() if name != "horizon"},
    )


def make_env(config: RunConfig, *, copies: int, cost_keys: Any, **options: Any) -> Any:
    """Copies of the task's environment; ``options`` are added to the run's own."""
    return envs.make(
        config.task,
        num_envs=copies,
        seed=config.seed,
        workers=min(config.workers, copies),
        cost_keys=cost_keys,
        horizon=config.horizon,
        **{**config.env, **options},
    )


def training_keys(config: RunConfig) -> Any:
    """Which costs training looks at: none where there is no limit."""
    limits = config.agent.get("cost_limits", ())
    return config.cost_keys if limits not in ((), None) else ()


def evaluation_keys(config: RunConfig) -> Any:
    """Which costs evaluation reports: named ones even where training has no limit."""
    return training_keys(config) if config.cost_keys is None else config.cost_keys


@contextlib.contextmanager
def _setting(config: RunConfig) -> Iterator[tuple[Any, Any]]:
    """Training and evaluation environments, with torch's thread count as configured; all undone on leaving."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with contextlib.ExitStack() as stack:
            env = make_env(config, copies=config.num_envs, cost_keys=training_keys(config))
            stack.callback(env.close)
            copies = min(config.eval_envs, config.eval_episodes)
            eval_env = make_env(config, copies=copies, cost_keys=evaluation_keys(config))
            stack.callback(eval_env.close)
            yield env, eval_env
    finally:
        torch.set_num_threads(threads)


def _run(
    config: RunConfig, folder: RunFolder, agent: CVPO, env: Any, eval_env: Any, progress: Progress, *, resume: bool
) -> Result:
    lock = Lock(folder)
    recorder = None
    try:
        loop = Loop(agent, env, config.schedule)
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
