"""Looking back at a run: its trained policy, evaluated or recorded on film."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from cvpo.agent import CVPO
from cvpo.errors import ConfigError, DependencyError, RunError, fitting
from cvpo.evaluation import check_episodes, evaluate
from cvpo.extras import require
from cvpo.run.config import RunConfig
from cvpo.run.folder import RunFolder
from cvpo.run.measure import Score, evaluation_seed, score
from cvpo.run.recorder import POLICIES
from cvpo.run.session import misfit
from cvpo.run.setting import build, evaluation_keys, load_config, make_env, torch_threads

FRAMES_PER_SECOND = 20


@contextlib.contextmanager
def opened(
    folder: str | os.PathLike[str], *, copies: int, device: Any = None, warn: Any = None, **env_options: Any
) -> Iterator[tuple[RunConfig, CVPO, Any]]:
    """Configuration, agent at the newest whole checkpoint, and ``copies`` of the environment for evaluation.

    The ``device`` is the run's own where None; ``env_options`` are added to the run's own. Raises RunError where
    ``folder`` is no run folder, CheckpointError where no checkpoint of it is whole; ``warn(message)`` is told of each
    that is not.
    """
    made = RunFolder(Path(folder))
    config = load_config(made)
    if device is not None:
        config = attrs.evolve(config, device=str(device))
    step, tree = made.checkpoints().newest(warn=warn)
    with (
        torch_threads(config.threads),
        contextlib.closing(make_env(config, copies=copies, cost_keys=evaluation_keys(config), **env_options)) as env,
    ):
        agent = build(config, env)
        # The policy is all that is needed: what was replayed is left.
        replayed = ("store", "source")
        with fitting(misfit(made, step)):
            agent.load_state_dict({name: part for name, part in tree["agent"].items() if name not in replayed})
        yield config, agent, env


def agent_of(folder: str | os.PathLike[str], *, env: Any = None, device: Any = "cpu") -> CVPO:
    """The agent of a run at its newest whole checkpoint, with everything but what was replayed; errors as of
    :func:`opened`."""
    with opened(folder, copies=1, device=device, warn=warnings.warn) as (_, agent, _):
        agent.env = env
        return agent


def scores(
    folder: str | os.PathLike[str], episodes: int | None = None, *, seed: int | None = None, warn: Any = None
) -> tuple[int, tuple[Score, ...]]:
    """(step, scores) of the policy's mode, its samples and random actions, all on the same ``episodes``.

    ``episodes`` and ``seed`` default to those of the run's own last evaluation, which this then repeats exactly.
    """
    config = load_config(RunFolder(Path(folder)))
    count = config.eval_episodes if episodes is None else episodes
    check_episodes(count, seed)
    with opened(folder, copies=min(config.eval_envs, count), warn=warn) as (config, agent, env):
        start = evaluation_seed(config.seed, agent.steps) if seed is None else seed

        def measure(policy: str, who: CVPO | None, deterministic: bool) -> Score:
            gamma = agent.config.gamma
            done = evaluate(who, env, count, deterministic=deterministic, seed=start, gamma=gamma)
            return score(policy, done, agent.config)

        found = [measure(policy, agent, deterministic) for policy, deterministic in POLICIES]
        return agent.steps, (*found, measure("random", None, True))


def film(folder: str | os.PathLike[str], path: str | os.PathLike[str], *, seed: int | None = None) -> int:
    """Write one episode of the policy's mode to the video ``path`` (.gif, or .mp4 where ffmpeg is); its frames.

    Raises EnvError where the task cannot be drawn, DependencyError for a missing package, RunError where the file
    cannot be written.
    """
    check_episodes(1, seed)
    with opened(folder, copies=1, render_mode="rgb_array") as (config, agent, env):
        obs = env.reset(seed=evaluation_seed(config.seed, agent.steps) if seed is None else seed)
        # Drawn before the file is opened: a task that cannot be drawn leaves none behind.
        frame, frames, over = env.render_frame(), 0, False
        try:
            with contextlib.closing(_writer(Path(path))) as writer:
                while not over:
                    writer.append_data(frame)
                    frames += 1
                    step = env.step(agent.act(obs, deterministic=True, handed_over=True).cpu().numpy())
                    obs, over = step.obs, bool(step.terminated[0] | step.truncated[0])
                    frame = frame if over else env.render_frame()
        except OSError as error:
            raise RunError(f"video {path} could not be written: {error.strerror or error}") from error
    return frames


def _writer(path: Path) -> Any:
    if path.suffix not in (".gif", ".mp4"):
        raise ConfigError(f"video {path} ends in {path.suffix!r}; allowed: .gif, .mp4")
    imageio = require("imageio.v2", "a video", "train")
    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise DependencyError(f"video {path} needs ffmpeg: pip install 'imageio[ffmpeg]', or name a .gif file")
    return imageio.get_writer(path, fps=FRAMES_PER_SECOND)
