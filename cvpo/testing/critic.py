"""The contract of a critic, to run on your own: ``check_critic(MyCritic())``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cvpo.testing import critic_properties as properties
from cvpo.testing.critic_properties import Case
from cvpo.testing.drawing import fixed, of_case


def check_critic(critic: Any, *, signals: int | None = None, examples: int = 15, accuracy: float = 0.05) -> None:
    """Raise AssertionError, with a falsifying example, unless ``critic`` keeps its contract.

    Q-values [S,B,K] that depend on their own state and action alone; networks determined by their generator; a loss
    that is linear in the weights of the batch and reaches every parameter; policy evaluation on a chain of three states
    ends at its Q-values, to ``accuracy`` of their range, where bootstrapping through the termination would end
    elsewhere. A critic that offers ``ensemble`` is at most its mean for the reward and at least its mean for costs; one
    that offers ``given`` need not learn those signals.

    ``signals`` is S where the critic takes only one number of them (None: its own ``signals``, if it has any).
    ``examples`` of each are drawn, the same ones every time.
    """
    for _, check in critic_checks(critic, signals=signals, examples=examples, accuracy=accuracy):
        check()


def critic_checks(
    critic: Any, *, signals: int | None = None, examples: int = 15, accuracy: float = 0.05
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The parts of :func:`check_critic`: what each is about, and a call that raises AssertionError."""
    drawn = fixed(examples)
    signals = signals or getattr(critic, "signals", None)
    counts = st.integers(1, 3) if signals is None else st.just(signals)
    cases = st.tuples(counts, st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31 - 1))
    parts: list[tuple[str, Callable[[Any, Case], None]]] = [
        ("Q-values have the shapes of the contract, and their inputs stay as they are", properties.check_form),
        ("a Q-value depends on its own state and action alone", properties.check_rows),
        ("the network is determined by its generator", properties.check_build),
        ("pessimism points down for the reward and up for costs", properties.check_pessimism),
        ("the loss is linear in the importance weights and reaches every parameter", properties.check_loss),
    ]
    for name, holds in parts:
        yield name, drawn(given(cases)(of_case(critic, holds)))
    yield (
        "policy evaluation ends at the Q-values, and termination ends the return",
        partial(properties.check_evaluation, critic, signals or 3, accuracy),
    )
