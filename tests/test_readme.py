"""README: its example runs as printed, its component table is that of the registries, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cvpo
from cvpo.assembly import FAMILIES

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_runs_as_printed(capsys: pytest.CaptureFixture[str]):
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 25
    scope: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), scope)  # noqa: S102 - the README is ours
    agent = scope["agent"]
    assert isinstance(agent, cvpo.CVPO) and agent.updates > 0
    assert "cost_0" in capsys.readouterr().out


def test_the_component_table_is_that_of_the_registries():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+) \|$", README, flags=re.MULTILINE)
    # Not what plug-ins add.
    expected = [
        (family, name, registry.summary(name))
        for family, registry in FAMILIES.items()
        for name in registry
        if registry.get(name).__module__.startswith("cvpo.")
    ]
    assert sorted(rows) == sorted(expected)


def test_the_commands_exist():
    from cvpo.cli import COMMANDS

    named = set(re.findall(r"`cvpo (\w+)", README))
    assert named == set(COMMANDS)
