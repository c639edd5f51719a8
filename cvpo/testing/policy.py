"""The contract of a policy, to run on your own: ``check_policy(MyPolicy())``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cvpo.testing import policy_properties as properties
from cvpo.testing.drawing import fixed, of_case
from cvpo.testing.policy_properties import Case


def check_policy(policy: Any, *, examples: int = 25) -> None:
    """Raise AssertionError, with a falsifying example, unless ``policy`` keeps its contract.

    A distribution over actions [B,D] for observations [B,O], finite and with a scale above 0 for observations of every
    size, that depends on its own observation alone; networks determined by their generator; samples determined by
    theirs, without gradient, that have the entropy that is said; a log-likelihood that reaches every parameter; and
    members of a population that are what they would be alone, where ``build`` takes one. Networks are called as an
    agent calls them, in training mode. ``examples`` of each are drawn, the same ones every time.
    """
    for _, check in policy_checks(policy, examples=examples):
        check()


def policy_checks(policy: Any, *, examples: int = 25) -> Iterator[tuple[str, Callable[[], None]]]:
    """The parts of :func:`check_policy`: what each is about, and a call that raises AssertionError."""
    drawn = fixed(examples)
    scales = st.sampled_from([1.0, 0.01, 100.0, 1e4])
    sizes = st.integers(2, 12) if policy.discrete else st.integers(1, 4)
    cases = st.tuples(st.integers(1, 5), sizes, scales, st.integers(0, 2**31 - 1))
    parts: list[tuple[str, Callable[[Any, Case], None]]] = [
        ("it gives a distribution of the shapes of the contract, with values that are one", properties.check_form),
        ("a distribution depends on its own observation alone", properties.check_rows),
        ("the network is determined by its generator", properties.check_build),
        ("samples are determined by theirs, and have the entropy that is said", properties.check_samples),
        ("the log-likelihood reaches every parameter", properties.check_gradients),
        ("members of a population are what they would be alone", properties.check_population),
    ]
    for name, holds in parts:
        yield name, drawn(given(cases)(of_case(policy, holds)))
