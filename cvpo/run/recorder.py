"""The recorder of a run: after every step it writes what is due - metrics, evaluations, checkpoints."""

from __future__ import annotations

import time
import warnings
from typing import Any

from cvpo.agent import CVPO
from cvpo.evaluation import evaluate
from cvpo.logs import CsvTable, Events, JsonLines
from cvpo.progress import Progress
from cvpo.run.config import RunConfig
from cvpo.run.folder import RunFolder, changed_options
from cvpo.run.measure import Interval, Score, evaluation_seed, score, troubles
from cvpo.train import Loop

#: How the agent acts in an evaluation, and whether that is deterministic.
POLICIES = (("deterministic", True), ("stochastic", False))


class Recorder:
    """The callback of a run's training loop. ``state`` is that of a checkpoint: rows written after it are dropped."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        agent: CVPO,
        eval_env: Any,
        progress: Progress,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.folder, self.agent, self.eval_env, self.progress = config, folder, agent, eval_env, progress
        self.checkpoints = folder.checkpoints(config.keep_checkpoints)
        self.interval = Interval(agent.config)
        self.scores: tuple[Score, ...] = ()
        self.stopped: int | None = None
        self._asked: int | None = None
        self._told: dict[str, str] = {}
        self._options = folder.options()
        positions = {"metrics": 0, "evaluations": 0}
        elapsed = 0.0
        if state is not None:
            positions, elapsed = state["positions"], state["elapsed"]
            self.interval.load_state_dict(state["interval"])
            for change in changed_options(state.get("options"), self._options):
                warnings.warn(f"{folder.config} was edited, and the run goes on with it: {change}", stacklevel=2)
        self.metrics, self.evaluations = JsonLines(folder.metrics), JsonLines(folder.evaluations)
        self.metrics.rewind(positions["metrics"])
        self.evaluations.rewind(positions["evaluations"])
        self.table = CsvTable(folder.table, folder.metrics)
        self.events = Events(folder.tensorboard, agent.steps if state else None) if config.tensorboard else None
        self.began = time.perf_counter() - elapsed
        self._mark()

    def __call__(self, loop: Loop) -> bool:
        """Write what is due after this step; False ends the run."""
        agent, config = self.agent, self.config
        # Looked at once: a signal that comes from here on is heeded, with its checkpoint, after the next step.
        self.stopped = self._asked
        for episode in loop.finished:
            self.interval.add(episode, agent.predicted_cost(episode))
        last = agent.steps >= config.steps
        if last or self._due(config.log_every):
            self._log(loop)
        if last or self._due(config.eval_every):
            self._evaluate()
        if last or self.stopped is not None or self._due(config.checkpoint_every):
            self._checkpoint(loop)
        self.progress.step(agent.steps)
        return self.stopped is None

    def stop(self, signal: int) -> None:
        """End the run after the step under way."""
        self._asked = signal

    def final(self) -> tuple[Score, ...]:
        """Scores of the policy at the end, and of random actions on the same episodes."""
        scores = self.scores or self._scores()
        return (*scores, self._score(None, "random", True))

    def close(self) -> None:
        for log in (self.metrics, self.evaluations, self.events):
            if log is not None:
                log.close()

    def _due(self, every: int) -> bool:
        """Whether this step reached or passed a multiple of ``every``; several environments step at once."""
        steps = self.agent.steps
        return every > 0 and steps // every > (steps - self.agent.num_envs) // every

    def _log(self, loop: Loop) -> None:
        agent, now = self.agent, time.perf_counter()
        seconds = max(now - self._since - self._paused, 1e-9)
        row: dict[str, Any] = {
            "step": agent.steps,
            "updates": agent.updates,
            "episodes": agent.constraint.statistics.count,
            **self.interval.take(),
            **loop.means.take(),
            "time/elapsed": now - self.began,
            "time/steps_per_second": (agent.steps - self._steps) / seconds,
            "time/updates_per_second": (agent.updates - self._updates) / seconds,
        }
        self.metrics.append(row)
        self.table.append(row)
        if self.events is not None:
            self.events.append(row)
        found = troubles(row)
        for name in found.keys() - self._told.keys():
            self.progress.note(f"step {agent.steps}: {found[name]}")
        self._told = found
        limits = agent.config.cost_limits
        self.progress.figures(row["train/return"], [row[f"train/cost_{m}"] for m in range(len(limits))], limits)
        self._mark()

    def _evaluate(self) -> None:
        began = time.perf_counter()
        self.scores = self._scores()
        row: dict[str, Any] = {"step": self.agent.steps}
        for scored in self.scores:
            name = f"eval/{scored.policy}"
            row |= {f"{name}/return": scored.returned, f"{name}/return_std": scored.return_std}
            row[f"{name}/length"] = scored.length
            for m, cost in enumerate(scored.costs):
                row |= {f"{name}/cost_{m}": cost, f"{name}/cost_{m}_std": scored.cost_stds[m]}
        row["time/elapsed"] = time.perf_counter() - self.began
        self.evaluations.append(row)
        if self.events is not None:
            self.events.append(row)
        mode = self.scores[0]
        costs = "  ".join(f"cost {cost:.4g}" for cost in mode.costs)
        self.progress.note(f"step {self.agent.steps}: evaluation return {mode.returned:.4g}  {costs}".rstrip())
        self._paused += time.perf_counter() - began

    def _scores(self) -> tuple[Score, ...]:
        return tuple(self._score(self.agent, name, deterministic) for name, deterministic in POLICIES)

    def _score(self, agent: CVPO | None, name: str, deterministic: bool) -> Score:
        evaluation = evaluate(
            agent,
            self.eval_env,
            self.config.eval_episodes,
            deterministic=deterministic,
            seed=evaluation_seed(self.config.seed, self.agent.steps),
            gamma=self.agent.config.gamma,
        )
        return score(name, evaluation, self.agent.config)

    def _checkpoint(self, loop: Loop) -> None:
        began = time.perf_counter()
        tree = {
            "agent": self.agent.state_dict(),
            "loop": loop.state_dict(),
            "recorder": {
                "positions": {"metrics": self.metrics.position(), "evaluations": self.evaluations.position()},
                "interval": self.interval.state_dict(),
                "elapsed": began - self.began,
                "options": self._options,
            },
        }
        self.checkpoints.write(self.agent.steps, tree)
        self._paused += time.perf_counter() - began

    def _mark(self) -> None:
        """Speeds are measured from here, without the time of evaluations and checkpoints."""
        self._since, self._paused = time.perf_counter(), 0.0
        self._steps, self._updates = self.agent.steps, self.agent.updates
