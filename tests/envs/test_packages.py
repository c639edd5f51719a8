"""The import of the packages that cannot be ordinary dependencies."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from cvpo.envs import make
from cvpo.envs.compat import array_defaults
from cvpo.envs.packages import BULLET_SAFETY_GYM, SAFETY_GYMNASIUM, package_of
from cvpo.errors import DependencyError

ROOT = Path(__file__).parents[2]


def variable(name: str) -> tuple[str, ...]:
    """A variable of the Makefile."""
    return tuple(re.search(rf"^{name}\s*:=\s*(.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split())


def test_makefile_installs_what_the_error_says():
    assert variable("SAFETY_BASE") == SAFETY_GYMNASIUM.base
    assert variable("SAFETY_NODEPS") == SAFETY_GYMNASIUM.no_deps
    assert variable("BULLET_NODEPS") == BULLET_SAFETY_GYM.no_deps


def test_constraints_agree_with_the_pins():
    pins = dict(line.lower().split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    for requirement in SAFETY_GYMNASIUM.base:
        name, _, version = requirement.partition("==")
        assert name in pins and version in ("", pins[name])


@pytest.mark.parametrize(
    ("task", "package", "lines"),
    [
        (
            "SafetyPointGoal1-v0",
            SAFETY_GYMNASIUM,
            ["pip install numpy==2.2.6 gymnasium==0.29.1", "pip install --no-deps safety-gym"],
        ),
        ("SafetyCarCircle-v0", BULLET_SAFETY_GYM, ["pip install --no-deps bullet-safety-gym==1.4.0 pybullet==3.2.7"]),
    ],
)
def test_missing_package_gives_the_exact_lines(monkeypatch, task, package, lines):
    import gymnasium

    monkeypatch.setattr(gymnasium, "registry", {})
    for name in [name for name in sys.modules if name.partition(".")[0] == package.module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Absent(package.module), *sys.meta_path])
    original = dataclasses.dataclass
    with pytest.raises(DependencyError, match=package.title) as caught:
        make(task)
    assert all(line in str(caught.value) for line in lines)
    assert dataclasses.dataclass is original


class _Absent:
    def __init__(self, module: str) -> None:
        self.module = module

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.module:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return None


def test_names_tell_the_packages_apart():
    assert package_of("SafetyCarCircle-v0") is BULLET_SAFETY_GYM
    assert package_of("SafetyCarCircle1-v0") is SAFETY_GYMNASIUM
    assert package_of("SafetyAntRun-v0") is BULLET_SAFETY_GYM
    assert package_of("SafetyAntVelocity-v1") is SAFETY_GYMNASIUM
    assert package_of("Pendulum-v1") is None


def test_array_defaults_only_inside_and_only_there(monkeypatch):
    original = dataclasses.dataclass
    ours, theirs = types.ModuleType("ours.sub"), types.ModuleType("theirs")
    for module in (ours, theirs):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    code = (
        "import dataclasses\nimport numpy as np\n"
        "@dataclasses.dataclass\nclass A:\n    n: int = 3\n    x: np.ndarray = np.zeros(2)\n"
    )
    with array_defaults("ours"):
        exec(code, ours.__dict__)
        with pytest.raises(ValueError, match="mutable default"):
            exec(code, theirs.__dict__)
    assert dataclasses.dataclass is original
    one, other = ours.A(), ours.A()
    one.x[0] = 5.0
    assert other.x[0] == 0.0 and other.n == 3 and np.array_equal(ours.A(x=np.ones(1)).x, [1.0])
    with pytest.raises(ValueError, match="mutable default"):
        exec(code, ours.__dict__)
    with pytest.raises(ZeroDivisionError), array_defaults("ours"):
        raise ZeroDivisionError
    assert dataclasses.dataclass is original
