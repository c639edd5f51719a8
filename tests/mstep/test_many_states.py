"""Very many projections at once: none fails (``python -m benchmarks.projections`` does the same with a million)."""

from __future__ import annotations

import pytest

from benchmarks.projections import measure
from cvpo import mstep


@pytest.mark.parametrize("average", ["batch", "state"])
@pytest.mark.parametrize("cholesky", [False, True])
@pytest.mark.parametrize("name", mstep.registry.names())
def test_no_projection_fails(name: str, cholesky: bool, average: str) -> None:
    row = measure(name, cholesky, average, 5_000)
    assert row["finite"]
    # The result is rounded to float32: 2^-22 |μ| against a step of √(2ε) scales, and the scale itself at ε = 1e-4.
    assert all(value <= 1.0 + 1e-3 for value in row["kl"].values())
