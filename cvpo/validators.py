"""attrs validators whose errors name the class, the field, what was found and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import attrs
import numpy as np
import torch

from cvpo.errors import ConfigError, suggest

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def number(
    *,
    gt: float = -math.inf,
    ge: float = -math.inf,
    lt: float = math.inf,
    le: float = math.inf,
    integer: bool = False,
    optional: bool = False,
) -> Validator:
    """Validator for a finite number with ``gt < x < lt`` and ``ge <= x <= le``; ``None`` passes where ``optional``."""
    bounds = [
        text
        for bound, text in ((gt, f"> {gt}"), (ge, f">= {ge}"), (lt, f"< {lt}"), (le, f"<= {le}"))
        if math.isfinite(bound)
    ]
    allowed = " ".join(["an integer" if integer else "a finite number", " and ".join(bounds)]).strip()
    if optional:
        allowed += ", or None"

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        kind = Integral if integer else Real
        good = isinstance(value, kind) and not isinstance(value, (bool, np.bool_)) and math.isfinite(value)
        if good and isinstance(value, np.generic):
            # Python's own, which files can hold.
            value = value.item()
            object.__setattr__(instance, attribute.name, value)
        if not (good and gt < value < lt and ge <= value <= le):
            raise ConfigError(f"{type(instance).__name__}.{attribute.alias} is {value!r}; allowed: {allowed}")

    return check


def one_of(allowed: Iterable[str]) -> Validator:
    """Validator for a name out of ``allowed``; a near miss is suggested."""
    names = tuple(allowed)

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in names:
            raise ConfigError(f"{type(instance).__name__}.{attribute.alias} is {value!r}; {suggest(str(value), names)}")

    return check


def device_of(value: Any) -> torch.device:
    """The device ``value`` names. Raises ConfigError where torch knows none of that name."""
    try:
        return torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device is {value!r}; allowed: a device of torch, such as 'cpu' or 'cuda'") from error


def device_here(value: Any) -> torch.device:
    """The device ``value`` names. Raises ConfigError where this machine has none of that name."""
    device = device_of(value)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {str(value)!r}, but torch finds no CUDA device here; allowed: 'cpu'")
    try:
        torch.Generator(device)
    except (RuntimeError, NotImplementedError) as error:
        found = f"device is {str(value)!r}, which has no random generator here"
        raise ConfigError(f"{found}; allowed: 'cpu', or 'cuda' where torch finds one") from error
    return device


def flag(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Validator for True or False, and nothing that only counts as one: the text "no" would be true."""
    if not isinstance(value, bool):
        raise ConfigError(f"{type(instance).__name__}.{attribute.alias} is {value!r}; allowed: True, False")


def as_tuple(value: Any) -> Any:
    """Converter of lists, as configuration files have them, to tuples; what is neither is left to the validator."""
    return tuple(value) if isinstance(value, list) else value


def sizes(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Validator for a tuple of positive layer widths; empty means a linear model."""
    if not isinstance(value, tuple) or not all(type(width) is int and width > 0 for width in value):
        raise ConfigError(
            f"{type(instance).__name__}.{attribute.alias} is {value!r}; allowed: a tuple of positive integers"
        )
