"""One finished run that the tests of runs compare with."""

from __future__ import annotations

import pytest

from cvpo.run import Result, RunFolder, configure, train
from tests.run.helpers import SMALL


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Result]:
    path = tmp_path_factory.mktemp("run") / "finished"
    return RunFolder(path), train(configure(seed=3, **SMALL), path)
