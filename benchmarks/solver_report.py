"""The report of the solver benchmark: ``solvers-PROFILE.jsonl`` to ``solvers-PROFILE.md`` and its plots."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.markdown import table
from benchmarks.performance import SHIFT, charged, performance_profile, shifted_geometric_mean
from benchmarks.solver_plots import draw_profiles, draw_scaling

Row = dict[str, Any]

LIMITATIONS = """\
- Times are those of one machine, with other work on it as the load says; ratios within one run carry further.
- Stacks are solved on the CPU. Nothing here is measured on a GPU unless a row of the goal table says so.
- Synthetic problems are Gaussian. `recorded` has short runs of two tasks with small networks; no long run, no images.
- Priors are uniform: categorical policies and importance weights are tested, but not timed.
- All problems are float64. In float32, residuals of the rounded weights stop near 1e-7, and no solver reaches 1e-9.
- The time of a solver includes its normalisation and its statuses; the baselines have neither, and report success where
  SciPy does. They know no infeasible problems and fail on them by construction.
- The share of the build part is taken from one call, in which evaluations are counted, and applied to the median.
- A time limit interrupts compiled code only when it returns, and a solve longer than the budget is timed once.
- Memory is the growth of the resident peak, in a process that ran a small problem before; memory that was held already
  is not seen.
- Solver options by level are those of `benchmarks/contestants.py`; other options may suit other problems."""


def write(results: Path) -> list[Path]:
    """A Markdown file and its plots for each file of rows in ``results``."""
    files: list[Path] = []
    for source in sorted(results.glob("solvers-*.jsonl")):
        rows = [json.loads(line) for line in source.read_text().splitlines()]
        header, solves = rows[0], [row for row in rows if row["kind"] == "solve"]
        times = {level: charged(_at(solves, level), header["time_limit_seconds"]) for level in _levels(solves)}
        plots = {
            "profile": source.with_name(f"{source.stem}-profile.png"),
            "scaling": source.with_name(f"{source.stem}-scaling.png"),
        }
        profiles = {level: performance_profile(each, header["time_limit_seconds"]) for level, each in times.items()}
        draw_profiles(profiles, plots["profile"])
        draw_scaling(_at(solves, 1e-6), plots["scaling"])
        target = source.with_suffix(".md")
        target.write_text(_markdown(header, rows, solves, times, {name: path.name for name, path in plots.items()}))
        files += [target, *plots.values()]
    return files


def _markdown(header: Row, rows: list[Row], solves: list[Row], times: dict[float, Any], plots: dict[str, str]) -> str:
    goals = [row for row in rows if row["kind"] == "goal"]
    memory = [row for row in rows if row["kind"] == "memory"]
    sections = ["# E-step solvers", _setting(header, solves)]
    if goals:
        sections += ["## Goals", GOALS, _goals(goals)]
    for level in times:
        sections += [f"## Residuals within {level:g}", _summary(_at(solves, level), times[level])]
    sections += [f"![performance profiles]({plots['profile']})", PROFILE]
    sections += [f"![time against size]({plots['scaling']})", SCALING]
    sections += ["## By family", FAMILIES, _families(_at(solves, 1e-6))]
    sections += ["## Inside a solve", INSIDE, _inside(_at(solves, 1e-6))]
    sections += ["## Statuses", STATUSES, _statuses(solves)]
    if memory:
        sections += ["## Peak memory", MEMORY, _memory(memory)]
    return "\n\n".join([*sections, "## Limitations", LIMITATIONS]) + "\n"


GOALS = """Ratios of times on the same problems, in turns in one run, at equal accuracy (residuals within 1e-6): the
median over the turns, and its quartiles. `python -m benchmarks.solvers` measures them all."""
PROFILE = """Share of cases solved within a factor of the fastest solver's time; a curve ends at the share that is
solved at all."""
SCALING = "One solve, cold, at 1e-6, where it is solved: one problem against its size, and stacks against their number."
FAMILIES = """Shifted geometric mean of the median times over solved cases only, cold and warm, at 1e-6; in brackets,
solved / all."""
INSIDE = """At 1e-6, cold, medians over cases: the build part is normalisation, modelling, statuses and weights; the
solve part is the optimiser's own. Evaluations count one for each problem and point; finite differences need several for
each iteration. Where a solver keeps its parts to itself, there is a dash."""
STATUSES = """What solvers said of each problem, over all cases, starts and levels. *Claimed*: rows with only OK and
INFEASIBLE; *wrongly*: those of them whose largest residual is above 1e-2."""
MEMORY = """Growth of the resident peak during one solve in a process of its own, at 1e-6, beside the bytes of the
Q-values: `one` is B=256, K=64, M=1, `stack` is 64 problems of B=64, K=16, M=1."""


def _setting(header: Row, solves: list[Row]) -> str:
    versions = header["versions"]
    names = ("python", "torch", "numpy", "scipy", "cvxpy", "clarabel", "osqp")
    packages = ", ".join(f"{name} {versions[name]}" for name in names if versions.get(name))
    cases = len({(row["family"], row["case"]) for row in solves})
    return (
        f"`{header['command']}`: {cases} cases, cold and warm, {header['seconds']:.0f} seconds. "
        f"{versions['processor']}, {versions['cpus']} cores, "
        f"{header['threads']} threads for large problems and stacks, load {header['load_before']:.1f} before and "
        f"{header['load_after']:.1f} after. cvpo {versions['cvpo']} at {versions['commit']}; {packages}. "
        f"Time limit {header['time_limit_seconds']:g} s, which every failure is charged. Generated from the rows by "
        "`python -m benchmarks.report`."
    )


def _goals(goals: list[Row]) -> str:
    lines = []
    for row in goals:
        measured = "not measured"
        if row["measured"] is not None:
            measured = f"{row['measured']:.3g} ({row['ratio']['p25']:.3g} to {row['ratio']['p75']:.3g})"
        seconds = "; ".join(f"{name} {1e3 * q['median']:.3g}" for name, q in row.get("seconds", {}).items())
        residual = "; ".join(f"{name} {value:.0e}" for name, value in row.get("residual", {}).items())
        notes = [row["note"]] if "note" in row else []
        if row.get("equal_accuracy") is False:
            notes.append("the other stays above 1e-6")
        if "evaluation_seconds" in row:
            notes.append(f"one NumPy evaluation {1e3 * row['evaluation_seconds']['median']:.2g} ms")
        reached = {True: "yes", False: "no", None: "–"}[row["reached"]]
        goal = f"{row['bound']} {row['needed']:g}"
        what = [row["goal"], row["size"], goal, measured, reached]
        lines.append([*what, seconds, residual, "; ".join(notes), f"`{row['command']}`"])
    heads = ["what", "size", "goal", "measured", "reached", "milliseconds", "largest residual", "notes", "command"]
    return table(heads, lines)


def _summary(rows: list[Row], times: dict[str, dict[str, float]]) -> str:
    heads = ["solver", "solved", "weights alone solved"]
    heads += [f"cold: mean, ms (shift {1e3 * SHIFT:g})", "warm: mean, ms", "cold, ratio to the best"]
    means = {
        solver: [
            shifted_geometric_mean([value for case, value in each.items() if case.endswith(start)])
            for start in ("/cold", "/warm")
        ]
        for solver, each in times.items()
    }
    best = min(cold for cold, _ in means.values())
    lines = []
    for solver in sorted(means, key=lambda name: means[name][0]):
        own = [row for row in rows if row["solver"] == solver]
        cold, warm = means[solver]
        shares = [f"{sum(row[grade] for row in own)} / {len(own)}" for grade in ("solved", "primal")]
        lines.append([f"`{solver}`", *shares, f"{1e3 * cold:.3g}", f"{1e3 * warm:.3g}", f"{cold / best:.3g}"])
    return table(heads, lines)


def _families(rows: list[Row]) -> str:
    families = list(dict.fromkeys(row["family"] for row in rows))

    def cell(own: list[Row]) -> str:
        solved = [row["seconds"]["median"] for row in own if row["solved"]]
        mean = f"{1e3 * shifted_geometric_mean(solved):.3g} ms " if solved else ""
        return f"{mean}({len(solved)} / {len(own)})"

    return _by_solver(
        rows, families, lambda own: [cell([row for row in own if row["family"] == family]) for family in families]
    )


def _inside(rows: list[Row]) -> str:
    def cells(own: list[Row]) -> list[str]:
        done = [row for row in own if row["status"] == "done" and row["start"] == "cold"]
        parts = [[row[key] for row in done] for key in ("build_seconds", "solve_seconds", "iterations", "evaluations")]
        known = [[value for value in part if value is not None] for part in parts]
        scale = (1e3, 1e3, 1, 1)
        return [f"{by * _median(part):.3g}" if part else "–" for part, by in zip(known, scale, strict=True)]

    return _by_solver(rows, ["build, ms", "solve, ms", "iterations", "evaluations"], cells)


def _statuses(rows: list[Row]) -> str:
    def cells(own: list[Row]) -> list[str]:
        counts: Counter[str] = Counter()
        for row in own:
            counts.update(row.get("statuses", {}))
        failed = sum(row["status"] != "done" for row in own)
        claimed = [row for row in own if row["status"] == "done" and set(row["statuses"]) <= {"OK", "INFEASIBLE"}]
        wrong = sum(max(row["residuals"].values()) > 1e-2 for row in claimed)
        words = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        return [words, str(len(claimed)), str(wrong), str(failed)]

    return _by_solver(rows, ["problems by status", "claimed", "wrongly", "errors and time limits"], cells)


def _memory(rows: list[Row]) -> str:
    def size(row: Row) -> str:
        if row["bytes"] is None:
            return row["error"]
        return f"{row['bytes'] / 2**20:.1f} MiB ({row['bytes'] / row['data_bytes']:.1f} times the data)"

    problems = list(dict.fromkeys(row["problem"] for row in rows))
    return _by_solver(rows, problems, lambda own: [size(row) for row in own])


def _by_solver(rows: list[Row], heads: list[str], cells: Callable[[list[Row]], list[str]]) -> str:
    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    lines = [[f"`{name}`", *cells([row for row in rows if row["solver"] == name])] for name in solvers]
    return table(["solver", *heads], lines)


def _levels(rows: list[Row]) -> list[float]:
    return sorted({row["level"] for row in rows}, reverse=True)


def _at(rows: list[Row], level: float) -> list[Row]:
    return [row for row in rows if row["level"] == level]


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
