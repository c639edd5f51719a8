"""Errors that cvpo raises on purpose.

Every message names the field, what was found and what is allowed, so that it can be printed alone: the command line
shows it without a traceback.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any


class CvpoError(Exception):
    """Base class: ``except cvpo.CvpoError`` catches everything that cvpo raises deliberately."""


class ConfigError(CvpoError, ValueError):
    """A component name, option or argument that cannot be used."""


class ProblemError(CvpoError, ValueError):
    """An E-step or M-step problem with wrong shapes or non-finite values."""


class EnvError(CvpoError, RuntimeError):
    """An environment that breaks the contract: missing cost, unsupported space, no horizon, non-finite values."""


class WorkerError(EnvError):
    """A worker process that died or raised."""


class RunError(CvpoError, RuntimeError):
    """A run folder that cannot be created, read or continued."""


class CheckpointError(RunError):
    """A checkpoint that is missing, damaged, from another configuration, or could not be written."""


class DependencyError(CvpoError, ImportError):
    """An optional package that is not installed; the message gives the install line."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Closing words of an error about an unknown ``name``: a close match when there is one, and what is allowed."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(allowed) if allowed else 'none'}"


@contextlib.contextmanager
def fitting(problem: str) -> Iterator[None]:
    """Whatever a state of something else makes go wrong is a CheckpointError that begins with ``problem``."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{problem}: {error}") from error
    except CvpoError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{problem}: it has no {error}") from error
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{problem}: {error}") from error


def load_part(whole: Any, name: str, state: Any) -> None:
    """``whole.name`` takes over ``state``. What goes wrong is a CheckpointError that begins with the name."""
    with fitting(name):
        getattr(whole, name).load_state_dict(state)
