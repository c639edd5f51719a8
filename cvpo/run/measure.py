"""What is measured along a run: the episodes since the last row of metrics, and costs against their limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from cvpo.config import AgentConfig
from cvpo.evaluation import Evaluation
from cvpo.statistics import Episode


def in_limit_units(kind: str, total: float, discounted: float, length: float) -> float:
    """A mean episode's cost in the units of its limit: the episode's sum, its discounted sum, or the cost per step."""
    return {"episode": total, "discounted": discounted, "step": total / max(length, 1.0)}[kind]


def ratio(cost: float, limit: float) -> float:
    """``cost / limit``; with a limit of 0, 0 where it is met and infinity where it is not."""
    return cost / limit if limit > 0 else (0.0 if cost <= 0 else math.inf)


class Interval:
    """Episodes that ended since the last row of metrics; :meth:`take` is what the row says of them."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._episodes: list[list[float]] = []

    def add(self, episode: Episode, predicted: np.ndarray) -> None:
        """Take an episode and the Q_c [M] that the critic predicts at its first step."""
        self._episodes.append(
            [float(episode.length), *map(float, episode.total), *map(float, episode.discounted), *map(float, predicted)]
        )

    def take(self) -> dict[str, float | None]:
        """Means of return, length, each cost, and of predicted and realised discounted costs; None without episodes."""
        names = column_names(self._config)
        if self._episodes:
            means = dict(zip(names, np.mean(self._episodes, axis=0).tolist(), strict=True))
        else:
            means = dict.fromkeys(names)
        row: dict[str, float | None] = {"train/return": means["total_0"], "train/length": means["length"]}
        for m, limit in enumerate(self._config.cost_limits):
            total, discounted = means[f"total_{m + 1}"], means[f"discounted_{m + 1}"]
            cost = None
            if self._episodes:
                cost = in_limit_units(self._config.limit_kind, total, discounted, means["length"])
            row[f"train/cost_{m}"] = cost
            row[f"train/limit_{m}"] = limit
            row[f"train/cost_ratio_{m}"] = None if cost is None else ratio(cost, limit)
            row[f"calibration/predicted_{m}"] = means[f"predicted_{m}"]
            row[f"calibration/realised_{m}"] = discounted
        self._episodes = []
        return row

    def state_dict(self) -> list[list[float]]:
        return self._episodes

    def load_state_dict(self, state: list[list[float]]) -> None:
        self._episodes = [list(values) for values in state]


def column_names(config: AgentConfig) -> list[str]:
    """What :meth:`Interval.add` keeps of an episode, in order."""
    signals, costs = range(config.signals), range(len(config.cost_limits))
    return [
        "length",
        *(f"total_{s}" for s in signals),
        *(f"discounted_{s}" for s in signals),
        *(f"predicted_{m}" for m in costs),
    ]


def troubles(row: Mapping[str, Any]) -> dict[str, str]:
    """What in a row of metrics says that nothing is learned, in words, by name."""
    found = {}
    loss = row.get("critic/loss")
    if loss is not None and not math.isfinite(loss):
        found["critic"] = f"critic/loss is {loss}: the critic is lost, and so is what follows from it"
    loss = row.get("mstep/loss")
    if loss is not None and not math.isfinite(loss):
        found["mstep"] = f"mstep/loss is {loss}: steps on such a loss put the policy back to the old one"
    failed = sum(row.get(f"estep/{status}", 0.0) for status in ("nonfinite", "backend_error"))
    if failed > 0.5:
        found["estep"] = f"{failed:.0%} of the E-steps have no solution (estep/nonfinite, estep/backend_error)"
    return found


@attrs.frozen
class Score:
    """An evaluation in numbers: mean ``returned`` and its standard deviation, mean ``length``, and of each cost the
    mean in the units of its limit, its standard deviation over episodes (of episode sums), and the ``limit`` (None:
    there is none)."""

    policy: str
    episodes: int
    returned: float
    return_std: float
    length: float
    costs: tuple[float, ...]
    cost_stds: tuple[float, ...]
    limits: tuple[float | None, ...]

    @property
    def within(self) -> tuple[bool | None, ...]:
        """For each cost, whether its mean is at most the limit."""
        return tuple(
            None if limit is None else cost <= limit for cost, limit in zip(self.costs, self.limits, strict=True)
        )

    def plain(self) -> dict[str, Any]:
        """For a JSON file."""
        return {**attrs.asdict(self), "within": self.within}


def score(policy: str, evaluation: Evaluation, config: AgentConfig) -> Score:
    """Means of an evaluation, each cost beside its limit (costs beyond the agent's limits are reported without one)."""
    costs = evaluation.costs.shape[1]
    limits = (*config.cost_limits, *([None] * costs))[:costs]
    total, discounted = evaluation.costs.mean(0), evaluation.discounted.mean(0)
    length = float(evaluation.lengths.mean())
    return Score(
        policy=policy,
        episodes=len(evaluation.returns),
        returned=float(evaluation.returns.mean()),
        return_std=float(evaluation.returns.std()),
        length=length,
        costs=tuple(
            in_limit_units(config.limit_kind, float(total[m]), float(discounted[m]), length) for m in range(costs)
        ),
        cost_stds=tuple(float(value) for value in evaluation.costs.std(0)),
        limits=limits,
    )


def evaluation_seed(seed: int, step: int) -> int:
    """The seed of the evaluation at ``step`` of a run: the same for every policy that is compared there."""
    return int(np.random.SeedSequence([seed, 3, step]).generate_state(1)[0])
