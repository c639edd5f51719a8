"""Keeps what Bullet-Safety-Gym does to the process, to global generators and the console, to itself."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def making() -> Iterator[None]:
    """Around the making of a Bullet-Safety-Gym task, its first import of PyBullet included."""
    with generators_kept(), plain_console():
        yield


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    outside = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(outside[0])
        np.random.set_state(outside[1])


@contextlib.contextmanager
def plain_console() -> Iterator[None]:
    """Inside the block, ``sys.stdout`` and ``sys.stderr`` are the process's own and what is written to them is dropped.

    The package looks the streams up by their C names, which notebooks and test runners replace, to hide what PyBullet
    prints from C; its build time escapes all the same, and has no place in a table that is piped on.
    """
    outer = sys.stdout, sys.stderr
    inner = sys.__stdout__, sys.__stderr__
    saved = []
    try:
        for stream in inner:
            if stream is not None:
                stream.flush()
                saved.append((stream, os.dup(stream.fileno())))
        with open(os.devnull, "w") as null:
            for stream, _ in saved:
                os.dup2(null.fileno(), stream.fileno())
        sys.stdout, sys.stderr = inner
        yield
    finally:
        sys.stdout, sys.stderr = outer
        for stream, copy in saved:
            stream.flush()
            os.dup2(copy, stream.fileno())
            os.close(copy)
