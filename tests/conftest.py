"""What every test gives back: the folder and the number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def stay() -> Iterator[None]:
    """One thread, as in `make test`; tests may change it, and the folder."""
    torch.set_num_threads(1)
    before = Path.cwd()
    yield
    os.chdir(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole trainings first, so that no worker starts one when the others are done."""
    items.sort(key=lambda item: "test_learning" not in item.nodeid)
