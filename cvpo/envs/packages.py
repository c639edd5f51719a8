"""The task packages beside Gymnasium: what installs them, and their import on first use."""

from __future__ import annotations

import importlib
import re
import sys

import attrs

from cvpo.envs.compat import array_defaults
from cvpo.errors import DependencyError


@attrs.frozen
class TaskPackage:
    """A package that registers Gymnasium tasks when imported.

    ``base`` are its real run-time requirements; ``no_deps`` must be installed without dependencies, because they pin
    versions that exclude everything current (``safety-gymnasium`` 1.0.0 asks for a ``pygame`` without a wheel for
    Python 3.11).
    """

    title: str
    module: str
    base: tuple[str, ...]
    no_deps: tuple[str, ...]

    @property
    def install_lines(self) -> list[str]:
        """The commands to run, in order."""
        lines = [f"pip install {' '.join(self.base)}"] if self.base else []
        return [*lines, f"pip install --no-deps {' '.join(self.no_deps)}"]

    def load(self, task: str) -> None:
        """Import the package. Raises DependencyError with the install lines where that fails."""
        if self.module in sys.modules:
            return
        try:
            with array_defaults(self.module):
                importlib.import_module(self.module)
        except Exception as error:  # noqa: BLE001 - a half-compatible set of versions fails in many ways
            lines = "".join(f"\n    {line}" for line in self.install_lines)
            raise DependencyError(
                f"task {task!r} needs {self.title}, which cannot be imported ({type(error).__name__}: {error}). "
                f"Its own version pins exclude current packages, so install it like this:{lines}"
            ) from error


SAFETY_GYMNASIUM = TaskPackage(
    "Safety-Gymnasium",
    "safety_gymnasium",
    base=(
        # Arrays of one element no longer pass for integers in 2.4, and it hands MuJoCo such arrays.
        "numpy==2.2.6",
        "gymnasium==0.29.1",
        "mujoco==3.3.7",
        "pygame==2.6.1",
        "pettingzoo==1.24.3",
        "xmltodict",
        "pyyaml",
        "imageio",
    ),
    no_deps=("safety-gymnasium==1.0.0", "gymnasium-robotics==1.2.2"),
)
BULLET_SAFETY_GYM = TaskPackage(
    "Bullet-Safety-Gym",
    "bullet_safety_gym",
    base=(),
    no_deps=("bullet-safety-gym==1.4.0", "pybullet==3.2.7"),
)

# Safety-Gymnasium's names carry a level (SafetyCarCircle1-v0), those of Bullet-Safety-Gym do not (SafetyCarCircle-v0).
_BULLET_NAME = re.compile(r"Safety(Ball|Car|Drone|Ant)(Reach|Push|Circle|Run|Gather)-v\d+")


def package_of(task: str) -> TaskPackage | None:
    """The package whose tasks are named like ``task``, or None."""
    if _BULLET_NAME.fullmatch(task):
        return BULLET_SAFETY_GYM
    return SAFETY_GYMNASIUM if task.startswith("Safety") else None
