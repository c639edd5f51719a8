"""Plots of the solver benchmark: performance profiles, and time against size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]


def draw_profiles(profiles: Mapping[float, Curves], path: Path) -> None:
    """A panel for each tolerance level: the share of cases solved within a factor of the best time."""
    figure = Figure(figsize=(4.4 * len(profiles), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(profiles), squeeze=False, sharey=True)[0]
    for axis, (level, curves) in zip(axes, profiles.items(), strict=True):
        widest = max((ratios[-1] for ratios, _ in curves.values() if len(ratios)), default=1.0)
        for i, (solver, (ratios, shares)) in enumerate(curves.items()):
            x = np.concatenate([[1.0], ratios, [2.0 * widest]])
            y = np.concatenate([[0.0], shares, shares[-1:] if len(shares) else [0.0]])
            # Over ten solvers at most: colours repeat with another dash.
            axis.step(x, y, where="post", label=solver, color=f"C{i % 10}", linestyle="-" if i < 6 else "--")
        axis.set(xscale="log", xlim=(1.0, 2.0 * widest), ylim=(0.0, 1.02), title=f"residuals within {level:g}")
        axis.set_xlabel("time, ratio to the fastest solver of the case")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of cases solved")
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def draw_scaling(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds of a cold solve, where solved, against B·K of one problem and against the problems of a stack."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (("size", lambda row: row["B"] * row["K"], "B·K"), ("stack", lambda row: row["P"], "problems P"))
    for axis, (family, size, label) in zip(figure.subplots(1, 2), panels, strict=True):
        own = [row for row in rows if row["family"] == family and row["start"] == "cold" and row["solved"]]
        for i, solver in enumerate(dict.fromkeys(row["solver"] for row in rows)):
            points = sorted((size(row), row["seconds"]["median"]) for row in own if row["solver"] == solver)
            if points:
                x, y = zip(*points, strict=True)
                axis.plot(x, y, marker=".", label=solver, color=f"C{i % 10}", linestyle="-" if i < 6 else "--")
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})
