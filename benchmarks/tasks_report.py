"""The report of the learning benchmark: rows of ``benchmarks.tasks`` to ``tasks.md`` and a picture for each suite.

    python -m benchmarks.tasks_report                       # also a part of python -m benchmarks.report
    python -m benchmarks.tasks_report --results DIRECTORY

Nothing is measured here, and nothing is in the report but what rows and the tables of peers say.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from benchmarks.tasks_peers import peer_run, published
from benchmarks.tasks_runs import Seeds, by_configuration, read_runs
from benchmarks.tasks_suites import SUITES, Suite
from benchmarks.tasks_tables import diagnosis_table, end_table, peers_table, reached_table, running_table, way_table
from cvpo.plots import draw

RESULTS = Path(__file__).parent / "results"

INTRODUCTION = """Unmodified tasks, each at its preset but for what a variant says, from rows of
`python -m benchmarks.tasks`; this page is what `python -m benchmarks.tasks_report` makes of them.

- *Evaluation* is on episodes of their own, with the policy's mode and with samples of it; *training* are the episodes
  that the agent collected, at the end those of the last tenth of the steps.
- Over seeds: mean ± sample standard deviation; IQM, the mean without the lowest and the highest quarter, with its 95 %
  bootstrap interval (percentiles of 10 000 resamples of the seeds). With fewer than four seeds the IQM is the mean, and
  the interval cannot reach beyond the lowest and the highest of them.
- *Cost/limit* is that of the mean cost. *Within* is the share of seeds whose own cost is at most the limit.
- In curves, evaluation of the mode is the line (band: lowest to highest seed), training the dotted line.
- *Steps to reach* a return: the first at which it is there, by the curve of the mean over seeds, and in brackets by
  each seed; a dash where it never is. Training is in bins of a hundredth of the steps, evaluation is of the mode.
- *Along the way*: means over seeds of all training episodes, and of all evaluations of the mode, in each fifth.
- *Running*: wall-clock of a process on one thread, with its evaluations and checkpoints, while as many processes as
  said, and whatever else the machine did, went on beside it: mean over seeds, and range. A process trains one run, or
  several as a population.
- *Diagnosis*: means over seeds, over all episodes or updates of the whole run and of its last tenth. Predicted and
  realised: the first cost, discounted, by the critic at the start of episodes and as it came; shares of E-steps by
  status; KL/ε of the E-step; λ, its multiplier of the first cost; KL of the projection's parts over their bounds."""


def write(results: Path) -> list[Path]:
    """The report and its pictures; nothing where there are no rows."""
    runs = read_runs(results)
    if not runs:
        return []
    files, sections = [], ["# Learning", INTRODUCTION]
    for name, suite in SUITES.items():
        own = [run for run in runs if run.header["suite"] == name]
        if own:
            picture = results / f"tasks-{name}.png"
            _draw(suite, by_configuration(own), results, picture)
            files.append(picture)
            sections += [f"## {name}", *_suite(suite, by_configuration(own), picture.name, results)]
    missing = [f"`{name}`" for name in SUITES if all(run.header["suite"] != name for run in runs)]
    if missing:
        sections += ["## Without rows", "Suites of which no run has ended yet: " + ", ".join(missing) + "."]
    target = results / "tasks.md"
    target.write_text("\n\n".join(sections) + "\n")
    return [target, *files]


def _suite(suite: Suite, groups: list[Seeds], picture: str, results: Path) -> list[str]:
    limits = ", ".join(f"{limit:g}" for limit in suite.limits)
    absent = [variant for variant in suite.variants if all(each.variant != variant for each in groups)]
    lines = [f"`{suite.task}`, episode cost limit {limits}."]
    if absent:
        lines.append(f"Variants without rows: {', '.join(absent)}.")
    peer = peer_run(results, suite.task)
    parts = [" ".join(lines), f"![curves]({picture})", "### At the end", end_table(suite, groups)]
    if suite.reach:
        curves = [each.group() for each in groups] + ([peer] if peer else [])
        parts += ["### Steps to reach", reached_table(suite, curves)]
    parts += ["### Along the way", way_table(suite, groups)]
    if peer or published(suite.task):
        parts += ["### Other libraries", peers_table(suite, peer)]
    parts += ["### Running", running_table(groups)]
    if any(run.training for each in groups for run in each.runs):
        parts += ["### Diagnosis", diagnosis_table(groups)]
    return parts


def _draw(suite: Suite, groups: list[Seeds], results: Path, path: Path) -> None:
    drawn = [each.group() for each in groups]
    peer = peer_run(results, suite.task)
    figure = draw(suite.task, [*drawn, *([peer] if peer else [])])
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main(argv: Iterable[str] | None = None) -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    for path in write(parser.parse_args(None if argv is None else list(argv)).results):
        print(path)


if __name__ == "__main__":
    main()
