"""The registry: names, options, errors that help, plug-ins that do not break the rest."""

from __future__ import annotations

import warnings
from importlib.metadata import EntryPoint

import attrs
import pytest

import cvpo.registry
from cvpo.errors import ConfigError
from cvpo.registry import Registry
from cvpo.validators import number


@attrs.frozen
class Part:
    summary = "a part"
    size: int = attrs.field(default=3, validator=number(ge=1, integer=True))


@attrs.frozen
class Other:
    """Another part."""


def fresh(group: str | None = None) -> Registry:
    return Registry("part", {"part": f"{__name__}:Part"}, group=group)


def test_names_options_and_instances_resolve():
    registry = fresh()
    assert registry.create("part", size=4) == Part(4)
    assert registry.resolve("part") == Part()
    assert registry.resolve({"name": "part", "size": 5}) == Part(5)
    assert registry.resolve(Part(6)) == Part(6)
    assert registry.create(f"{__name__}:Part", size=7) == Part(7)
    assert registry.summary("part") == "a part"


def test_describe_is_the_inverse_of_resolve():
    registry = fresh()
    registry.register("other", Other)
    for component in (Part(9), Other()):
        assert registry.resolve(registry.describe(component)) == component
    assert registry.describe(Part(9)) == {"name": "part", "size": 9}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.create("prat"), "unknown part 'prat'; did you mean 'part'"),
        (lambda r: r.create("part", sise=2), "has no option 'sise'; did you mean 'size'"),
        (lambda r: r.create("part", size=0), r"Part.size is 0; allowed: an integer >= 1"),
        (lambda r: r.create("part", size=True), r"Part.size is True; allowed: an integer >= 1"),
        (lambda r: r.create("no_such_module:Part"), "cannot be imported"),
        (lambda r: r.resolve({"size": 2}), "need a 'name'"),
        (lambda r: r.resolve(Part), "pass an instance"),
        (lambda r: r.register("part", Other), "registered already"),
        (lambda r: r.register("a part", Other), "cannot be called 'a part'"),
        (lambda r: r.register("module:Part", Other), "cannot be called 'module:Part'"),
        (lambda r: r.register("third", Part()), "part 'third' is of type Part; allowed: a class"),
        (lambda r: r.create("os:getcwd"), "part 'os:getcwd' is of type builtin_function_or_method; allowed: a class"),
    ],
)
def test_errors_name_field_found_and_allowed(call, message):
    with pytest.raises(ConfigError, match=message):
        call(fresh())


@pytest.mark.parametrize("code", ["undefined_name", "1 / 0", "class:"])
def test_a_module_that_fails_is_said_to(code, tmp_path, monkeypatch):
    (tmp_path / "part_that_fails.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="part 'part_that_fails:Part' cannot be imported: .*Error"):
        fresh().create("part_that_fails:Part")


def test_register_decorates_and_repeats_safely():
    registry = fresh()
    decorated = registry.register("other")(Other)
    assert decorated is Other and registry.register("other", Other) is Other
    assert registry.names() == ["other", "part"]


def test_entry_points_load_lazily_and_a_broken_one_is_named(monkeypatch: pytest.MonkeyPatch):
    entries = [
        EntryPoint("good", f"{__name__}:Other", "group"),
        EntryPoint("broken", "no_such_module:Thing", "group"),
        EntryPoint("part", f"{__name__}:Other", "group"),
    ]
    monkeypatch.setattr(cvpo.registry, "entry_points", lambda group: entries)
    registry = fresh("group")
    with pytest.warns(UserWarning, match="name 'part' is taken"):
        assert registry.names() == ["broken", "good", "part"]
    assert registry.get("good") is Other
    assert registry.describe(Other()) == {"name": "good"}
    with pytest.warns(UserWarning, match="'broken'.*no_such_module"), pytest.raises(ConfigError, match="'broken'"):
        registry.create("broken")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry.names() == ["good", "part"]
        with pytest.raises(ConfigError, match="plug-in 'broken'.*no_such_module"):
            registry.create("broken")
