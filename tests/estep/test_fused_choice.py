"""Who goes over the data: compiled loops where they can, and torch where they cannot."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch

from cvpo import compiled
from cvpo.compiled import switched_off
from cvpo.errors import DependencyError
from cvpo.estep import Status, fused, registry
from cvpo.estep.scaling import shifted
from cvpo.estep.workspace import Workspace, passes_over
from tests.estep.problems import draw_problem

pytest.importorskip("numba")


def test_who_goes_over_the_data() -> None:
    q = shifted(draw_problem(1)).q
    assert isinstance(passes_over(q, None), fused.Fused)
    with switched_off():
        assert isinstance(passes_over(q, None), Workspace)
    assert not fused.fits(q.to("meta"))
    assert isinstance(passes_over(q.requires_grad_(), None), Workspace)
    with torch.no_grad():
        assert isinstance(passes_over(q, None), fused.Fused)


def test_without_numba_passes_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_module", compiled._module.__wrapped__)
    monkeypatch.setitem(sys.modules, "cvpo.estep.kernels", None)
    monkeypatch.setitem(sys.modules, "numba", None)
    problem = draw_problem(1, (4,), prior=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not fused.fits(problem.q_reward)
        assert (registry.create("newton").solve(problem).status == Status.OK).all()
    with pytest.raises(DependencyError, match=r"pip install 'cvpo\[fast\]'"):
        registry.create("newton", passes="numba")


def test_loops_are_compiled_where_there_is_no_place_to_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def njit(**options: object) -> object:
        given.append(options)

        def decorate(function: object) -> object:
            if options.get("cache"):
                raise RuntimeError("cannot cache function: no locator available")
            return function

        return decorate

    monkeypatch.setattr("numba.njit", njit)
    assert compiled.compiled(nogil=True)(len) is len
    assert [each.get("cache", False) for each in given] == [True, False] and all(each["nogil"] for each in given)


def test_a_numba_that_does_not_import_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("Numba needs NumPy 9 or less")

    monkeypatch.setattr(compiled, "_module", compiled._module.__wrapped__)
    monkeypatch.setattr(compiled.importlib, "import_module", broken)
    with pytest.warns(UserWarning, match="NumPy 9 or less"):
        assert fused.kernels() is None
