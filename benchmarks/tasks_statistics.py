"""Statistics over seeds: mean and standard deviation, interquartile mean with its bootstrap interval, steps to reach.

The interquartile mean is that of Agarwal et al., "Deep RL at the edge of the statistical precipice" (2021): the mean
without the lowest and the highest quarter, here of the seeds of one task.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
from scipy.stats import bootstrap, trim_mean

CONFIDENCE = 0.95
RESAMPLES = 10_000


@attrs.frozen
class Summary:
    """Over ``count`` seeds: ``mean``, sample standard deviation ``std``, interquartile mean ``iqm`` and the ``low`` and
    ``high`` end of its 95 % bootstrap interval; None where one seed cannot tell."""

    count: int
    mean: float
    iqm: float
    std: float | None = None
    low: float | None = None
    high: float | None = None


def summary(values: Sequence[float]) -> Summary:
    """The statistics of one number a seed. With fewer than four seeds nothing is trimmed: the IQM is the mean."""
    data = np.asarray(values, dtype=float)
    mean, iqm = float(data.mean()), float(trim_mean(data, 0.25))
    if len(data) == 1:
        return Summary(1, mean, iqm)
    found = bootstrap(
        (data,),
        lambda sample, axis: trim_mean(sample, 0.25, axis=axis),
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return Summary(len(data), mean, iqm, float(data.std(ddof=1)), float(found.low), float(found.high))


def share_within(costs: Sequence[Sequence[float]], limits: Sequence[float]) -> float:
    """The share of seeds each of whose ``costs`` is at most its limit."""
    return float(np.mean([all(c <= limit for c, limit in zip(each, limits, strict=True)) for each in costs]))


def reached(steps: Sequence[float], values: Sequence[float], level: float) -> int | None:
    """The first of ``steps`` where the curve is at ``level`` or above; None where it never is."""
    return next((int(step) for step, value in zip(steps, values, strict=True) if value >= level), None)
