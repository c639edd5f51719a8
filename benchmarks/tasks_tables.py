"""Tables of the learning benchmark's report, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.markdown import table
from benchmarks.tasks_peers import published
from benchmarks.tasks_runs import Seeds, TaskRun
from benchmarks.tasks_statistics import Summary, reached, share_within, summary
from benchmarks.tasks_suites import Suite
from cvpo.plots import Group
from cvpo.run.measure import ratio

#: The end of training begins at this share of the steps.
END = 0.9

#: Shares of the steps between which a run is looked at on its way.
FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def end_table(suite: Suite, groups: list[Seeds]) -> str:
    """Return and costs at the end of the runs, for each variant by where they were measured."""

    def training(run: TaskRun) -> tuple[float, tuple[float, ...]] | None:
        row = run.pooled(END) if run.training else {}
        costs = [row.get(f"train/cost_{m}") for m in range(len(run.header["config"]["cost_limits"]))]
        known = row.get("train/return") is not None and None not in costs
        return (row["train/return"], tuple(costs)) if known else None

    sources: dict[str, Callable[[TaskRun], tuple[float, tuple[float, ...]] | None]] = {
        "evaluation, mode": lambda run: run.score("deterministic"),
        "evaluation, samples": lambda run: run.score("stochastic"),
        "training": training,
    }
    lines = []

    def add(label: str, source: str, steps: str, scores: dict[int, tuple[float, tuple[float, ...]]]) -> None:
        returns = summary([returned for returned, _ in scores.values()])
        costs = _costs([costs for _, costs in scores.values()], suite.limits)
        lines.append([label, source, ", ".join(map(str, scores)), steps, _spread(returns), _iqm(returns), *costs])

    for each in groups:
        for source, score in sources.items():
            scores = {run.header["seed"]: found for run in each.runs if (found := score(run)) is not None}
            if scores:
                add(each.label, source, _steps(each.steps), scores)
    # Random actions are the same in all variants.
    by_seed = {run.header["seed"]: run.score("random") for each in groups for run in each.runs}
    add("random actions", "evaluation", "–", dict(sorted(by_seed.items())))
    heads = ["variant", "what", "seeds", "steps", "return", "IQM of the return"]
    return table([*heads, "cost", "IQM of the cost", "cost/limit", "within"], lines)


def _costs(costs: Sequence[Sequence[float]], limits: Sequence[float]) -> list[str]:
    """Cells on the costs of all seeds; dashes where there are none (training without a constraint looks at none)."""
    if any(len(each) != len(limits) for each in costs):
        return ["–"] * 4
    each_cost = [summary(own) for own in zip(*costs, strict=True)]
    ratios = [f"{ratio(own.mean, limit):.2f}" for own, limit in zip(each_cost, limits, strict=True)]
    joined = ["; ".join(map(_spread, each_cost)), _iqms(each_cost), "; ".join(ratios)]
    return [*joined, f"{share_within(costs, limits):.0%}"]


def reached_table(suite: Suite, groups: list[Group]) -> str:
    """The first steps at which each of the suite's returns is reached."""

    def cell(each: Group, source: str, level: float) -> str:
        band = each.band(f"{source}/return")
        if band is None:
            return "no rows"
        own = [_steps(reached(*run.values[f"{source}/return"], level)) for run in each.runs]
        return f"{_steps(reached(*band[:2], level))} ({', '.join(own)})"

    lines = [
        [each.label, f"{level:g}", cell(each, "training", level), cell(each, "evaluation", level)]
        for each in groups
        for level in suite.reach
    ]
    return table(["variant", "return", "training", "evaluation"], lines)


def way_table(suite: Suite, groups: list[Seeds]) -> str:
    """Return and costs in each fifth of the steps, training and evaluation apart."""
    names = ["return", *(f"cost_{m}" for m in range(len(suite.limits)))]

    def cell(values: Iterable[float | None]) -> str:
        known = list(values)
        return "–" if None in known else f"{summary(known).mean:.4g}"

    lines = []
    for each in groups:
        for since, until in zip(FIFTHS, FIFTHS[1:], strict=False):
            pooled = [run.pooled(since, until) for run in each.runs]
            training = [cell(row.get(f"train/{name}") for row in pooled) for name in names]
            columns = [f"eval/deterministic/{name}" for name in names]
            evaluation = [cell(run.evaluated(column, since, until) for run in each.runs) for column in columns]
            lines.append([each.label, _steps(until * each.steps), *training, *evaluation])
    heads = [f"{source}: {name.replace('_', ' ')}" for source in ("training", "evaluation") for name in names]
    return table(["variant", "up to step", *heads], lines)


def peers_table(suite: Suite, peer: Group | None) -> str:
    """What was published on the task, and the end of the peer's run."""
    lines = [
        [each.algorithm, _steps(each.steps), f"{each.returned:g}", each.cost or "not stated", each.source]
        for each in published(suite.task)
    ]
    for source in ("training", "evaluation") if peer else ():
        steps, returns, *_ = peer.band(f"{source}/return")
        costs = peer.band(f"{source}/cost_0")[1]
        note = f"fast-safe-rl 0.1.0, run here on 2 cores: {source}, mean of {len(peer.runs)} seeds"
        lines.append(["CVPO", _steps(steps[-1]), f"{returns[-1]:.4g}", f"{costs[-1]:.3g}", note])
    return table(["algorithm", "steps", "return", "cost", "source"], lines)


def running_table(groups: list[Seeds]) -> str:
    """Wall-clock, machine, code and command of each variant."""
    lines = []
    for each in groups:
        headers = [run.header for run in each.runs]
        minutes = [header["seconds"] / 60 for header in headers]
        speed = [header["config"]["steps"] / header["seconds"] for header in headers]
        versions = [header["versions"] for header in headers]
        machine = _distinct(f"{version['processor']}, {version['cpus']} cores" for version in versions)
        beside = _distinct(str(header.get("jobs", "not noted")) for header in headers)
        together = _distinct(str(header.get("together", 1)) for header in headers)
        commits = _distinct(str(version.get("commit"))[:7] for version in versions)
        spread = f"{summary(minutes).mean:.1f}"
        if len(minutes) > 1:
            spread += f" ({min(minutes):.1f} to {max(minutes):.1f})"
        lines.append([each.label, spread, f"{summary(speed).mean:.0f}", beside, together, machine, commits])
        lines[-1].append(f"`{headers[0]['command']}`")
    heads = ["variant", "minutes", "steps a second", "processes side by side", "runs in one"]
    return table([*heads, "machine", "cvpo", "command"], lines)


def diagnosis_table(groups: list[Seeds]) -> str:
    """Calibration, E-step, projection and critic loss of each variant."""
    statuses = ("ok", "infeasible", "max_iter", "nonfinite", "backend_error")
    columns = {
        "predicted": "calibration/predicted_0",
        "realised": "calibration/realised_0",
        **{name.replace("_", " "): f"estep/{name}" for name in statuses},
        "KL/ε": "estep/kl",
        "λ": "estep/lam_0",
        "projection: mean": "mstep/kl/mean",
        "cov": "mstep/kl/cov",
        "joint": "mstep/kl/joint",
        "critic loss": "critic/loss",
    }
    lines = []
    for each in groups:
        for part, since in (("whole run", 0.0), ("last tenth", END)):
            rows = [run.pooled(since) for run in each.runs]
            values = [[row[column] for row in rows if row.get(column) is not None] for column in columns.values()]
            lines.append([each.label, part, *(f"{summary(own).mean:.3g}" if own else "–" for own in values)])
    return table(["variant", "when", *columns], lines)


def _spread(of: Summary) -> str:
    return f"{of.mean:.4g}" + ("" if of.std is None else f" ± {of.std:.2g}")


def _iqm(of: Summary) -> str:
    return "–" if of.low is None else f"{of.iqm:.4g} [{of.low:.4g}, {of.high:.4g}]"


def _iqms(all_costs: Sequence[Summary]) -> str:
    return "–" if all_costs[0].low is None else "; ".join(map(_iqm, all_costs))


def _steps(steps: float | None) -> str:
    return "–" if steps is None else f"{steps:,.0f}".replace(",", " ")


def _distinct(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
