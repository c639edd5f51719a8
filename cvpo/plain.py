"""Components in plain values, as files hold them, and back: nothing but attrs classes is ever made of a file."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import attrs

from cvpo.errors import ConfigError, CvpoError

INSIDE = "class"
"""The key by which a component that is an option of another is known in plain values."""


def path_of(cls: type) -> str:
    """``"module:Class"``, by which a class is found again."""
    return f"{cls.__module__}:{cls.__qualname__}"


def imported(family: str, path: str) -> Any:
    """What ``"module:name"`` names. Raises ConfigError where there is no such thing."""
    module, _, attribute = path.partition(":")
    try:
        return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except CvpoError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a module of somebody's raises
        said = error if isinstance(error, ImportError | AttributeError | ValueError) else repr(error)
        raise ConfigError(f"{family} {path!r} cannot be imported: {said}") from error


def attrs_class(family: str, found: Any, path: str) -> Any:
    """``found``, which is at ``path``. Raises ConfigError where it is no attrs class."""
    if not (isinstance(found, type) and attrs.has(found)):
        raise ConfigError(f"{family} {path!r} from a file is no attrs class; allowed: registered names, attrs classes")
    return found


def findable(family: str, component: Any) -> str:
    """The path of an instance's class. Raises ConfigError where a file that says so would not lead back to it."""
    path = path_of(type(component))
    if not attrs.has(type(component)):
        options = sorted(getattr(component, "__dict__", ()))
        raise ConfigError(
            f"{family} {path} is no attrs class, so that its options {options} cannot be written down; "
            "allowed: a class with @attrs.frozen"
        )
    if "<locals>" in path:
        raise ConfigError(
            f"{family} {path} is a class inside a function, which no file finds; allowed: one of a module"
        )
    return path


def options_of(component: Any) -> dict[str, Any]:
    """The fields of an attrs instance by the names that its class takes, in plain values."""
    fields = attrs.fields(type(component)) if attrs.has(type(component)) else ()
    name = type(component).__name__
    return {
        field.alias: _plain(getattr(component, field.name), f"{name}.{field.alias}") for field in fields if field.init
    }


def _plain(value: Any, what: str) -> Any:
    """The plain value of ``what``. Raises ConfigError for a function, which has none."""
    if attrs.has(type(value)):
        return {INSIDE: findable("option", value), "options": options_of(value)}
    if isinstance(value, dict):
        return {key: _plain(item, what) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item, what) for item in value)
    if callable(value):
        found = getattr(value, "__qualname__", value)
        raise ConfigError(
            f"{what} is the function {found}, which no file holds; allowed: a name, or an instance of an attrs class "
            "of a module. An agent with that takes over the state_dict() of this one"
        )
    return value


def made(family: str, value: Any) -> Any:
    """An option from its plain value: what :func:`options_of` wrote of a component in it is that component anew."""
    if isinstance(value, dict) and value.keys() == {INSIDE, "options"}:
        cls = attrs_class(family, imported(family, value[INSIDE]), value[INSIDE])
        return cls(**{name: made(family, option) for name, option in value["options"].items()})
    if isinstance(value, dict):
        return {key: made(family, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(made(family, item) for item in value)
    return value
