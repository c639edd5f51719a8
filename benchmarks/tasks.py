"""Learning benchmark: whole training runs on named tasks, several seeds, one file of rows for each run.

    python -m benchmarks.tasks                                          # the real tasks, seeds 0, 5 and 10
    python -m benchmarks.tasks car-circle half-cheetah --seeds 0 5 --jobs 4
    python -m benchmarks.tasks ablation-circle --variants mean max --steps 100000
    python -m benchmarks.tasks half-cheetah --together                  # the seeds as one population, on one core

Each run is a process of its own with one thread, ``--jobs`` of them side by side; with ``--together`` the seeds of a
variant share a process (the header's ``together`` says how many), resumed ones too. Its folder is under
``--folder``; a folder that exists is resumed or, where it is complete, only read, so that an interrupted benchmark goes
on where it was. As soon as a run ends, ``benchmarks/results/tasks/<suite>/<variant>-<seed>.jsonl`` holds its
configuration, versions, wall-clock seconds, final scores and learning curve (:mod:`benchmarks.tasks_rows`); a run that
has such a file is not run again. ``python -m benchmarks.tasks_report`` makes tables and curves of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import attrs

from benchmarks.tasks_rows import read_run, rows_of, write_run
from benchmarks.tasks_suites import DEFAULT, SUITES
from cvpo.run import RunFolder

RESULTS = Path(__file__).parent / "results" / "tasks"


class TaskError(Exception):
    """A run that failed, or that is not the one that its folder or its rows are of."""


@attrs.frozen
class Run:
    """One run: what it is called, the arguments of ``cvpo`` for it, where it trains and where its rows go."""

    suite: str
    variant: str
    seed: int
    command: tuple[str, ...]
    folder: Path
    rows: Path

    @property
    def name(self) -> str:
        return f"{self.suite} {self.variant} {self.seed}"

    @property
    def text(self) -> str:
        """The command as one would type it."""
        return " ".join(["cvpo", *self.command])

    def finished(self) -> bool:
        """Whether its rows are there. Raises TaskError where they, or its folder, are of another run."""
        if self.rows.exists():
            before = read_run(self.rows)[0]["command"]
            if before != self.text:
                raise TaskError(f"{self.rows} is of `{before}`, not of `{self.text}`; remove it, or use --results")
            return True
        config = RunFolder(self.folder).config
        steps = int(self.command[self.command.index("--steps") + 1])
        if config.exists() and json.loads(config.read_text())["steps"] != steps:
            raise TaskError(f"{self.folder} was made for another number of steps than {steps}; use another --folder")
        return False


def run(runs: Sequence[Run], jobs: int) -> list[dict[str, Any]]:
    """Train ``runs`` of one variant to their ends, or on to it, and write their rows; the headers. Raises TaskError
    where training fails."""
    new = [each for each in runs if not RunFolder(each.folder).config.exists()]
    halted = [each for each in runs if each not in new and not RunFolder(each.folder).result.exists()]
    if len(new) > 1:
        at = new[0].command.index("--seed")
        seeds = ["--seeds", *(str(each.seed) for each in new)]
        base = str(new[0].folder).removesuffix(f"-{new[0].seed}")
        _cvpo([*new[0].command[:at], *seeds, *new[0].command[at + 2 :], "--run", base], new[0])
    if len(halted) > 1 and set.intersection(*map(_checkpoints, halted)):
        _cvpo(["resume", *(str(each.folder) for each in halted)], halted[0])
    headers = []
    for each in runs:
        folder = RunFolder(each.folder)
        if not folder.config.exists():
            _cvpo([*each.command, "--run", str(each.folder)], each)
        elif not folder.result.exists():
            _cvpo(["resume", str(each.folder)], each)
        named = {"suite": each.suite, "variant": each.variant, "task": SUITES[each.suite].task, "seed": each.seed}
        rows = rows_of({**named, "command": each.text, "jobs": jobs}, folder)
        write_run(each.rows, rows)
        headers.append(rows[0])
    return headers


def _checkpoints(run: Run) -> set[int]:
    """The steps that a run can go on from."""
    return {step for step, _ in RunFolder(run.folder).checkpoints().files()}


def _cvpo(arguments: Sequence[str], each: Run) -> None:
    """The command ``cvpo`` in a process of its own, whose output goes beside the folder of ``each``."""
    log = each.folder.with_name(f"{each.folder.name}.log")
    with open(log, "a") as file:
        done = subprocess.run(
            [sys.executable, "-m", "cvpo", *arguments],
            stdout=file,
            stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise TaskError(f"{each.name} ended with status {done.returncode}; {log} says why")


def plan(arguments: argparse.Namespace) -> list[Run]:
    """The runs asked for: a seed of every variant before the next seed."""
    runs = []
    for suite in arguments.suites or DEFAULT:
        for seed in arguments.seeds:
            for variant in arguments.variants or SUITES[suite].variants:
                name = f"{variant}-{seed}"
                command = tuple(SUITES[suite].command(variant, seed, arguments.steps))
                folder, rows = arguments.folder / suite / name, arguments.results / suite / f"{name}.jsonl"
                runs.append(Run(suite, variant, seed, command, folder, rows))
    return runs


def main(argv: Iterable[str] | None = None) -> int:
    """Run what is missing; the exit status is 1 where a run failed, 130 after Ctrl-C."""
    arguments = _parse(argv)
    try:
        runs = {each: each.finished() for each in plan(arguments)}
    except TaskError as error:
        print(error, file=sys.stderr)
        return 1
    for each, finished in runs.items():
        each.folder.parent.mkdir(parents=True, exist_ok=True)
        if finished:
            print(f"{each.name}: has its rows already")
    missing: dict[Any, list[Run]] = {}
    for each in (each for each, finished in runs.items() if not finished):
        missing.setdefault((each.suite, each.variant) if arguments.together else each, []).append(each)
    failed, pool = 0, ThreadPoolExecutor(arguments.jobs)
    try:
        futures = [pool.submit(run, group, arguments.jobs) for group in missing.values()]
        for future in as_completed(futures):
            try:
                headers = future.result()
            except TaskError as error:
                failed += 1
                print(error, file=sys.stderr, flush=True)
                continue
            for header in headers:
                name, score = "{suite} {variant} {seed}".format(**header), json.dumps(header["result"]["scores"][0])
                print(f"{name}: {header['seconds']:.0f} s, {score}", flush=True)
    except KeyboardInterrupt:
        # The runs under way were told too: they save themselves and end. None of the others starts.
        pool.shutdown(cancel_futures=True)
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    pool.shutdown()
    return int(failed > 0)


def _parse(argv: Iterable[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tasks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"{', '.join(SUITES)} (none: {', '.join(DEFAULT)})")
    parser.add_argument("--variants", nargs="+", help="of the suites' variants (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 5, 10])
    parser.add_argument("--steps", type=int, help="environment steps (default: the suite's own)")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side (default: 2)")
    parser.add_argument(
        "--together", action="store_true", help="the seeds of a variant in one process, as a population"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/tasks"), help="of the run folders")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of the rows")
    arguments = parser.parse_args(None if argv is None else list(argv))
    for suite in arguments.suites:
        if suite not in SUITES:
            parser.error(f"unknown suite {suite!r}; there are {', '.join(SUITES)}")
    for suite in arguments.suites or DEFAULT:
        for variant in arguments.variants or ():
            if variant not in SUITES[suite].variants:
                parser.error(f"suite {suite!r} has no variant {variant!r}; it has {', '.join(SUITES[suite].variants)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
