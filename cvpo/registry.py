"""Registry of interchangeable components: names resolve to frozen attrs classes, once, at construction."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import attrs

from cvpo.errors import ConfigError, CvpoError, suggest
from cvpo.plain import attrs_class, findable, imported, made, options_of, path_of

T = TypeVar("T")


class Registry:
    """Components of one family by name.

    ``builtin`` maps names to ``"module:Class"``, imported on first use, so that ``import cvpo`` stays light. Packages
    add theirs through the entry-point group (``group``), scripts through :meth:`register`. A component is a frozen
    attrs class whose fields are its hyper-parameters (numbers, strings, tuples and dicts of them, and further such
    instances), with a class attribute ``summary``, one line for ``cvpo list``.

    Wherever a name is taken, ``"my_package.my_module:MyClass"`` is taken too: a resumed run finds a user's own class
    again without an entry point.
    """

    def __init__(self, family: str, builtin: dict[str, str], group: str | None = None) -> None:
        self.family = family
        self._group = group
        self._targets: dict[str, Any] = dict(builtin)
        self._broken: dict[str, str] = {}
        self._scanned = group is None

    def register(self, name: str, component: type[T] | None = None) -> Any:
        """Add ``component`` under ``name``; without ``component``, a class decorator. Raises ConfigError if taken, or
        where it is no class."""
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
            raise ConfigError(f"{self.family} cannot be called {name!r}; allowed: letters, digits, '_', '-' and '.'")
        if component is None:

            def decorate(cls: type[T]) -> type[T]:
                self.register(name, cls)
                return cls

            return decorate
        self._check_class(name, component)
        if name in self._known() and self.get(name) is not component:
            raise ConfigError(f"{self.family} {name!r} is registered already; choose another name")
        self._targets[name] = component
        return component

    def names(self) -> list[str]:
        """All names: built in, registered, and from entry points."""
        return sorted(self._known())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def get(self, name: str) -> type:
        """The component class called ``name`` (or ``"module:Class"``). Raises ConfigError for an unknown name, for what
        does not load, and for what is no class."""
        targets = self._known()
        if name in targets:
            target = targets[name]
            if isinstance(target, EntryPoint):
                target = self._targets[name] = self._load_plugin(target)
        elif ":" in name:
            target = name
        elif name in self._broken:
            raise ConfigError(self._broken[name])
        else:
            raise ConfigError(f"unknown {self.family} {name!r}; {suggest(name, targets)}")
        found = imported(self.family, target) if isinstance(target, str) else target
        self._check_class(name, found)
        return found

    def create(self, name: str, **options: Any) -> Any:
        """A component instance. Raises ConfigError for an unknown name, an unknown option or a value not allowed."""
        cls = self.get(name)
        fields = [field.alias for field in attrs.fields(cls)] if attrs.has(cls) else None
        for option in options:
            if fields is not None and option not in fields:
                raise ConfigError(f"{self.family} {name!r} has no option {option!r}; {suggest(option, fields)}")
        try:
            return cls(**{option: made(self.family, value) for option, value in options.items()})
        except CvpoError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.family} {name!r} cannot be made: {error}") from error

    def resolve(self, spec: Any) -> Any:
        """An instance from a name, from ``{"name": ..., **options}``, or the instance itself."""
        if isinstance(spec, str):
            return self.create(spec)
        if isinstance(spec, dict):
            options = dict(spec)
            name = options.pop("name", None)
            if not isinstance(name, str):
                raise ConfigError(f"{self.family} options need a 'name'; found {sorted(spec)}")
            return self.create(name, **options)
        if isinstance(spec, type):
            raise ConfigError(f"{self.family} is the class {spec.__name__}; pass an instance, {spec.__name__}(...)")
        return spec

    def describe(self, component: Any) -> dict[str, Any]:
        """``{"name": ..., **fields}`` of an instance; :meth:`resolve` gives back an equal one.

        Raises ConfigError where a file could not: its options cannot be told, or its class not be found again.
        """
        cls, path = type(component), path_of(type(component))
        names = [
            known
            for known, target in self._targets.items()
            if target is cls or path == (target.value if isinstance(target, EntryPoint) else target)
        ]
        untold = not attrs.has(cls) and bool(getattr(component, "__dict__", None))
        if untold or not names:
            path = findable(self.family, component)
        return {"name": names[-1] if names else path, **options_of(component)}

    def check_safe(self, spec: Any) -> None:
        """Raises ConfigError where a name or dict from a file would make anything but registered components and attrs
        classes: making an attrs class stores values, anything else may run whatever the file says."""
        name = spec.get("name") if isinstance(spec, dict) else spec
        if isinstance(name, str) and name not in self._known():
            attrs_class(self.family, self.get(name), name)

    def summary(self, name: str) -> str:
        """One line that says what the component is."""
        cls = self.get(name)
        return getattr(cls, "summary", None) or (cls.__doc__ or "").strip().split("\n", 1)[0]

    def _known(self) -> dict[str, Any]:
        if not self._scanned:
            self._scanned = True
            for entry in entry_points(group=self._group or ""):
                if entry.name in self._targets:
                    warnings.warn(
                        f"plug-in {entry.value!r} ({self._group}) is ignored: the name {entry.name!r} is taken",
                        stacklevel=3,
                    )
                    continue
                self._targets[entry.name] = entry
        return self._targets

    def _check_class(self, name: str, found: Any) -> None:
        if not isinstance(found, type):
            raise ConfigError(f"{self.family} {name!r} is of type {type(found).__name__}; allowed: a class")

    def _load_plugin(self, entry: EntryPoint) -> type:
        try:
            return entry.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a third party's import raises
            del self._targets[entry.name]
            message = f"{self.family} plug-in {entry.name!r} ({entry.value}) does not load: {error!r}"
            self._broken[entry.name] = message
            warnings.warn(message, stacklevel=4)
            raise ConfigError(message) from error
