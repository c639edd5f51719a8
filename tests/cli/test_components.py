"""``cvpo list`` and ``cvpo check``."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

import cvpo.registry
import cvpo.testing
from cvpo.assembly import FAMILIES
from cvpo.cli import main


def test_list_shows_every_component_and_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for registry in FAMILIES.values():
        for name in registry:
            assert name in text and registry.summary(name) in text
    assert main(["list", "policy"]) == 0
    text = capsys.readouterr().out
    assert "cholesky" in text and "slsqp" not in text


def test_list_goes_on_after_a_broken_plug_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = FAMILIES["estep"]
    group = "cvpo.estep"
    found = [EntryPoint("broken", "no_such_module:Solver", group), EntryPoint("good", "tests.cli.helpers:Odd", group)]
    monkeypatch.setattr(cvpo.registry, "entry_points", lambda group: [e for e in found if e.group == group])
    monkeypatch.setattr(registry, "_targets", dict(registry._targets))
    monkeypatch.setattr(registry, "_scanned", False)
    assert main(["list"]) == 0
    captured = capsys.readouterr()
    assert "an odd one" in captured.out and "newton" in captured.out
    assert captured.err.count("no_such_module:Solver") == 1 and captured.err.startswith("cvpo: warning: ")


def test_check_prints_what_holds_and_the_first_that_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def run_checks(family: str, component: Any) -> Any:
        seen.append((family, component))
        yield SimpleNamespace(name="signs", error=None)
        if component.max_iter == 1:
            yield SimpleNamespace(name="limits", error="q_cost = [1, 2]")

    monkeypatch.setattr(cvpo.testing, "run_checks", run_checks, raising=False)
    assert main(["check", "estep", "newton"]) == 0
    assert capsys.readouterr().out == "passed  signs\n"
    assert main(["check", "estep", "newton", "max_iter=1"]) == 1
    assert capsys.readouterr().out == "passed  signs\nFAILED  limits\n\nq_cost = [1, 2]\n"
    assert seen[0] == ("estep", FAMILIES["estep"].create("newton"))
