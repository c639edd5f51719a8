"""Packages that only some solvers need."""

from __future__ import annotations

import importlib
from typing import Any

from cvpo.errors import DependencyError


def require(package: str, extra: str = "solvers") -> Any:
    """The module ``package``. Raises DependencyError with the install line where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DependencyError(f"{package} is not installed; install it with: pip install 'cvpo[{extra}]'") from error
