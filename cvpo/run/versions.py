"""What computed a run: interpreter, packages, source and machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cvpo

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "numba",
    "attrs",
    "gymnasium",
    "safety-gymnasium",
    "bullet-safety-gym",
    "mujoco",
    "pybullet",
    "gymnasium-robotics",
    "osqp",
    "cvxpy",
    "clarabel",
    "safetensors",
)


def versions() -> dict[str, Any]:
    """What computed the run: interpreter, packages (None where not installed), the commit of a checkout, machine."""
    found: dict[str, Any] = {"python": sys.version.split()[0], "cvpo": cvpo.__version__, "commit": _commit()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return {**found, "platform": platform.platform(), "processor": _processor(), "cpus": os.cpu_count()}


def _commit() -> str | None:
    """The commit of the source checkout that cvpo is imported from, with ``+`` where files differ from it."""
    root = Path(cvpo.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "cvpo") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
