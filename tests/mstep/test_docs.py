"""The example of a projection in docs/mstep.md runs as it is printed, and is what the page says it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cvpo import mstep

PAGE = Path(__file__).parents[2] / "docs" / "mstep.md"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mstep.registry, "_targets", dict(mstep.registry._targets))
    return mstep.registry


def test_the_example_runs_and_keeps_the_contract(registry) -> None:
    (source,) = [
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "class MeanOnly" in block
    ]
    exec(compile(source, str(PAGE), "exec"), {"__name__": "example"})
    assert registry.create("mean-only", kl_mean=0.1).bounds["mean"] == 0.1
