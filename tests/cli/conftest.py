"""One small run that the commands work on."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvpo.cli import main
from tests.cli.helpers import SMALL


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "--run", str(path), *SMALL]) == 0
    return path
