"""Curves of runs: return and each cost over steps, the limit drawn, several seeds of one configuration as a band."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from cvpo.errors import ConfigError, RunError
from cvpo.extras import require
from cvpo.logs import read_rows
from cvpo.run.config import read_options
from cvpo.run.folder import RunFolder

#: Options that do not make another experiment: seeds of one configuration are drawn as one curve. Of ``steps``, see
#: :func:`_experiment`.
IGNORED = ("seed", "steps", "threads", "workers", "checkpoint_every", "keep_checkpoints", "tensorboard", "device")
#: Columns of the two sources: training is what the agent collected, evaluation its mode on other episodes.
SOURCES = {"evaluation": "eval/deterministic/", "training": "train/"}
_QUANTITY = re.compile(r"return$|cost_\d+$")


@attrs.frozen(eq=False)
class Curves:
    """One run: its flat ``options``, and for each quantity (``"evaluation/return"``, ...) steps and values."""

    options: dict[str, Any]
    values: dict[str, tuple[np.ndarray, np.ndarray]]


@attrs.frozen(eq=False)
class Group:
    """Runs of one configuration and the ``label`` that tells it from the others of its task."""

    label: str
    runs: list[Curves]
    limits: tuple[float, ...]

    def band(self, quantity: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Steps that all runs have, and the mean, lowest and highest value there; None without any."""
        found = [run.values[quantity] for run in self.runs if quantity in run.values]
        if not found or len(found) < len(self.runs):
            return None
        steps = found[0][0]
        for other, _ in found[1:]:
            steps = np.intersect1d(steps, other)
        if not len(steps):
            return None
        rows = np.stack([values[np.searchsorted(own, steps)] for own, values in found])
        return steps, rows.mean(0), rows.min(0), rows.max(0)


def find_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """The run folders among ``paths`` and below them, where a ``config.json`` of another program may lie too. Raises
    RunError for a path without any, ConfigError for none."""
    if not paths:
        raise ConfigError("there is no run to draw; name run folders, or folders of runs")
    found: dict[Path, RunFolder] = {}
    for path in paths:
        below = (
            sorted(config.parent for config in path.rglob("config.json") if _of_run(config)) if path.is_dir() else []
        )
        if not below:
            raise RunError(f"{path} is not a run folder and holds none: there is no config.json with a task")
        found |= {each.resolve(): RunFolder(each) for each in below}
    return list(found.values())


def _of_run(config: Path) -> bool:
    """Whether a ``config.json`` names a task. What cannot be read may: who reads it next says why it cannot."""
    try:
        return isinstance(read_options(config).get("task"), str)
    except ConfigError:
        return True


def read_curves(folder: RunFolder) -> Curves:
    """The curves of one run. Raises RunError where its logs cannot be read."""
    rows = [row for path in (folder.metrics, folder.evaluations) if path.is_file() for row in read_rows(path)]
    values: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for column in {column for row in rows for column in row}:
        for source, prefix in SOURCES.items():
            name = column.removeprefix(prefix)
            if name != column and _QUANTITY.match(name):
                try:
                    points = [(row["step"], row[column]) for row in rows if row.get(column) is not None]
                    steps, heights = np.array(points, dtype=float).reshape(-1, 2).T
                except (KeyError, TypeError, ValueError) as error:
                    allowed = "numbers, each with its step"
                    raise RunError(f"{column} in the logs of {folder.path}: {error!r}; allowed: {allowed}") from error
                values[f"{source}/{name}"] = (steps, heights)
    return Curves(folder.options(), {name: pair for name, pair in values.items() if len(pair[0])})


def group(curves: Sequence[Curves]) -> dict[str, list[Group]]:
    """Runs by task, and within a task by configuration; labels name the options that differ within the task."""
    tasks: dict[str, dict[str, list[Curves]]] = {}
    for run in curves:
        key = json.dumps(_experiment(run.options), sort_keys=True)
        tasks.setdefault(run.options["task"], {}).setdefault(key, []).append(run)
    return {task: _groups(list(groups.values())) for task, groups in tasks.items()}


def draw(task: str, groups: Sequence[Group]) -> Any:
    """A matplotlib figure: a panel for the return and one for each cost."""
    figure_class, canvas = _matplotlib()
    quantities = {name.split("/", 1)[1] for each in groups for run in each.runs for name in run.values}
    names = ["return", *sorted(quantities - {"return"})]
    figure = figure_class(figsize=(5.5 * len(names), 4.2), layout="constrained")
    canvas(figure)
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        for i, each in enumerate(groups):
            _curve(axis, each, name, f"C{i}")
        if name != "return":
            index = int(name.removeprefix("cost_"))
            for limit in sorted({each.limits[index] for each in groups if index < len(each.limits)}):
                axis.axhline(limit, color="black", linestyle="--", linewidth=1, label=f"limit {limit:g}")
            axis.set_ylim(bottom=0)
        axis.set_xlabel("environment steps")
        axis.set_ylabel(name.replace("_0", "").replace("_", " ") if len(names) == 2 else name.replace("_", " "))
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize="small")
    figure.suptitle(f"{task}: evaluation (line; band: lowest to highest run) and training episodes (dotted)")
    return figure


def plot(paths: Sequence[Path], output: Path) -> list[Path]:
    """Draw the runs among ``paths`` to ``output``/<task>.png, one picture for each task; the files.

    Raises RunError where there are no runs, nothing to draw, or a picture cannot be written, DependencyError without
    matplotlib.
    """
    _matplotlib()
    files = []
    for task, groups in group([read_curves(folder) for folder in find_runs(paths)]).items():
        if not any(run.values for each in groups for run in each.runs):
            raise RunError(f"the runs of {task} have no metrics yet; nothing to draw")
        file = output / f"{task.replace('/', '-')}.png"
        try:
            output.mkdir(parents=True, exist_ok=True)
            draw(task, groups).savefig(file, dpi=120)
        except OSError as error:
            raise RunError(f"picture {file} could not be written: {error.strerror or error}") from error
        files.append(file)
    return files


def _curve(axis: Any, each: Group, name: str, colour: str) -> None:
    """Evaluation as a line with a band, training as a thin dotted line."""
    runs = f"{len(each.runs)} run" + ("s" if len(each.runs) > 1 else "")
    training, evaluation = each.band(f"training/{name}"), each.band(f"evaluation/{name}")
    if training is not None:
        axis.plot(*training[:2], ":", color=colour, linewidth=1)
    if evaluation is not None:
        steps, mean, low, high = evaluation
        axis.plot(steps, mean, color=colour, marker=".", label=f"{each.label} ({runs})")
        if len(each.runs) > 1:
            axis.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)


def _experiment(options: dict[str, Any]) -> dict[str, Any]:
    """The options that make an experiment: ``steps`` too where learning rates fall over them."""
    ignored = IGNORED if options.get("final_lr", 1.0) == 1.0 else set(IGNORED) - {"steps"}
    return {name: value for name, value in options.items() if name not in ignored}


def _groups(groups: list[list[Curves]]) -> list[Group]:
    flat = [_flat(_experiment(runs[0].options)) for runs in groups]
    names = sorted({name for options in flat for name in options})
    differing = [name for name in names if len({json.dumps(options.get(name)) for options in flat}) > 1]
    made = []
    for runs, options in zip(groups, flat, strict=True):
        label = ", ".join(f"{name}={options.get(name)}" for name in differing) or "evaluation"
        made.append(Group(label, runs, tuple(np.atleast_1d(runs[0].options.get("cost_limits", ())))))
    return made


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options under dotted names; a component's name under the part's own."""
    flat: dict[str, Any] = {}
    for key, value in options.items():
        name = prefix.rstrip(".") if prefix and key == "name" else prefix + key
        flat.update(_flat(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat


def _matplotlib() -> tuple[Any, Any]:
    """Figure and canvas without pyplot: no global state, no display."""
    figure, canvas = (require(f"matplotlib.{name}", "a plot", "train") for name in ("figure", "backends.backend_agg"))
    return figure.Figure, canvas.FigureCanvasAgg
