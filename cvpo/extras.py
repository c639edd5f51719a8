"""Packages that only some parts need, imported when these are used."""

from __future__ import annotations

import importlib
from typing import Any

from cvpo.errors import DependencyError


def require(module: str, user: str, extra: str) -> Any:
    """The ``module`` that ``user``, in words, needs. Raises DependencyError with the install line of ``extra``."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DependencyError(f"{user} needs {package}: pip install 'cvpo[{extra}]'") from error
