"""From a class to flags: types that can be parsed, defaults, and help taken from the class's own docstring."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import attrs
import docstring_parser
import tyro
from tyro.constructors import PrimitiveConstructorSpec

_SIMPLE = (int, float, bool, str, type(None), Path)
_SEQUENCES = (tuple, list, set, frozenset)
#: To type checkers attrs.Factory is a function.
_Factory: Any = attrs.Factory


def option(hint: Any, text: str, called: str | None = None) -> Any:
    """``hint`` with help and, where ``called`` is given, the flag's own name."""
    annotated: Any = Annotated
    return annotated[hint, tyro.conf.arg(name=called, help=text)]


def flag_type(hint: Any) -> Any:
    """``hint`` as far as a flag can hold it: unions lose the members that no text stands for (a callable, say); what
    is left without any is read as a Python literal, or else as a string."""
    return hint if _parsable(hint) else _narrowed(hint)


def _narrowed(hint: Any) -> Any:
    if typing.get_origin(hint) in (Union, types.UnionType):
        kept = [part for part in map(_told, typing.get_args(hint)) if _parsable(part)]
        if any(part is not type(None) for part in kept):
            return Union[tuple(kept)]  # noqa: UP007 - a union of a computed list
    return Annotated[
        Any,
        PrimitiveConstructorSpec(
            nargs=1,
            metavar="VALUE",
            instance_from_str=lambda words: literal(words[0]),
            is_instance=lambda value: True,
            str_from_instance=lambda value: [value if isinstance(value, str) else repr(value)],
        ),
    ]


def _told(hint: Any) -> Any:
    """A sequence of unions as one of what is left of them."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin not in _SEQUENCES or _parsable(hint):
        return hint
    return origin[tuple(part if part is Ellipsis else flag_type(part) for part in parts)]


def _parsable(hint: Any) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _parsable(parts[0])
    if origin in (Union, types.UnionType):
        return all(map(_parsable, parts))
    if origin is Literal:
        return True
    if origin in _SEQUENCES:
        return all(part is Ellipsis or _parsable(part) for part in parts)
    return hint in _SIMPLE or (inspect.isclass(hint) and issubclass(hint, enum.Enum))


def literal(text: str) -> Any:
    """A number, a bool, a tuple ... where ``text`` is one in Python or JSON, else the text itself."""
    words = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def hints_of(cls: type) -> dict[str, Any]:
    """Type of each field; ``Any`` where an annotation cannot be evaluated outside its module."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception:  # noqa: BLE001 - whatever evaluating a third party's annotation raises
        return {}


def flag(cls: type, name: str, default: Any = dataclasses.MISSING, *, called: str | None = None) -> tuple[Any, ...]:
    """One field of a dataclass for tyro, (name, type, field), for the field ``name`` of ``cls``.

    ``called`` is the flag's own name. Without ``default`` the flag must be given.
    """
    hint = option(flag_type(hints_of(cls).get(name, Any)), help_of(cls, name))
    if default is dataclasses.MISSING:
        return called or name, hint, dataclasses.field()
    value = tuple(default) if isinstance(default, list) else default
    return called or name, hint, dataclasses.field(default_factory=lambda: value)


def default_of(field: attrs.Attribute[Any]) -> Any:
    """A field's default, ``dataclasses.MISSING`` where it has none that does not depend on the other fields."""
    default: Any = field.default
    if isinstance(default, _Factory):
        return dataclasses.MISSING if default.takes_self else default.factory()
    return dataclasses.MISSING if default is attrs.NOTHING else default


def help_of(cls: type, name: str) -> str:
    """What a section of the class's docstring ("Attributes:", "Args:") says of the field ``name``."""
    for param in docstring_parser.parse(inspect.getdoc(cls) or "").params:
        if param.arg_name == name:
            return plain_text(param.description or "")
    return ""


def description_of(cls: type) -> str:
    """The class's docstring as plain prose, without the sections that :func:`help_of` reads."""
    return plain_text(docstring_parser.parse(inspect.getdoc(cls) or "").description or "")


def plain_text(doc: str) -> str:
    """Prose without markup: roles become names, double back-quotes go, each paragraph is one line."""
    doc = re.sub(r":\w+:`~?\.?([^`]*)`", lambda match: match[1].rsplit(".", 1)[-1], doc).replace("``", "")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", doc.strip()))
