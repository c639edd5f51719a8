"""The contract of a buffer, to run on your own: ``check_buffer(MyBuffer())``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from cvpo.testing import buffer_properties as properties
from cvpo.testing.drawing import fixed
from cvpo.testing.transitions import Stream, transitions

Property = Callable[[Any, Stream], None]


def check_buffer(buffer: Any, *, examples: int = 40) -> None:
    """Raise AssertionError, with a falsifying example, unless ``buffer`` keeps its contract on drawn streams.

    What is sampled is a window of one episode that was added: signals summed with γ, ``discount`` γ to its length, the
    observation and the termination of its last step. Every stored step can be drawn and no other; weights are positive
    with 1 as the largest, and smaller for what is drawn more often; new priorities leave all that as it is; states are
    restored bit for bit. ``capacity``, where the component has one, is varied so that the oldest steps are
    overwritten. What is optional, ``extend``, ``end`` and the windows of a batch, is held to the same. ``examples`` of
    each are drawn, the same ones every time.
    """
    for _, check in buffer_checks(buffer, examples=examples):
        check()


def buffer_checks(buffer: Any, *, examples: int = 40) -> Iterator[tuple[str, Callable[[], None]]]:
    """The parts of :func:`check_buffer`: what each is about, and a call that raises AssertionError."""
    drawn = fixed(examples)
    parts: list[tuple[str, Property]] = [
        ("samples are windows of what was added, within one episode", properties.check_windows),
        ("every stored step can be drawn, and no other", properties.check_reach),
        ("importance weights are positive, the largest 1", properties.check_weights),
        ("steps that are drawn more often weigh less", properties.check_correction),
        ("new priorities change what is likely, and nothing else", properties.check_priorities),
        ("what is stored is a copy, and so is what is sampled", properties.check_copies),
        ("a restored store goes on bit for bit", properties.check_state),
        ("many steps at once, ends and single steps are what they say", properties.check_optional),
    ]
    for name, holds in parts:
        yield name, drawn(given(transitions(), st.sampled_from([1.0, 0.4, 1.5]))(_run(buffer, holds)))


def _run(buffer: Any, holds: Property) -> Callable[[Stream, float], None]:
    def keeps(stream: Stream, share: float) -> None:
        sized = buffer
        if attrs.has(type(buffer)) and "capacity" in attrs.fields_dict(type(buffer)):
            # Room for a part of the steps, all, or more; and for a fraction of a row that must not be used.
            rows = max(1, int(share * len(stream)))
            sized = attrs.evolve(buffer, capacity=rows * stream.envs + stream.envs - 1)
        holds(sized, stream)

    keeps.__name__ = holds.__name__
    return keeps
