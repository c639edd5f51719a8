"""The stages of an update, told apart from outside: which part of the agent is running now.

    sampling   a batch from the buffer, states for the E-step, priorities back
    target     next actions, target critics on them, TD targets
    critic     forward and backward of the critics on the batch, their optimiser
    particles  actions drawn from the old policy, Q-values of all of them, the cost limit
    dual       the E-step's convex program
    fit        the M-step: forward and backward of the policy, its optimiser, its multipliers
    guard      the search for a step inside the trust region, where the fit left it
    averages   target critics and old policy
    metrics    what the update reports of the E-step
    rest       everything else in ``agent.update``

Times and counts are exclusive: what runs inside an inner stage is not the outer one's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import cvpo.learner
import cvpo.mstep.fit
from cvpo.agent import CVPO

STAGES = ("sampling", "target", "critic", "particles", "dual", "fit", "guard", "averages", "metrics", "rest")


class Stage:
    """The innermost stage that was entered, and the seconds spent in each."""

    def __init__(self) -> None:
        self.names = ["rest"]
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.since = time.perf_counter()

    def name(self) -> str:
        """The stage that is running."""
        return self.names[-1]

    def book(self) -> None:
        """Book the time since the last change of stage."""
        now = time.perf_counter()
        self.seconds[self.names[-1]] += now - self.since
        self.since = now

    def around(self, call: Callable[..., Any], name: str, inside: dict[str, str]) -> Callable[..., Any]:
        """``call`` as the stage ``name``, or as ``inside[outer]`` where it is called from the stage ``outer``."""

        def staged(*args: Any, **kwargs: Any) -> Any:
            self.book()
            self.names.append(inside.get(self.names[-1], name))
            try:
                return call(*args, **kwargs)
            finally:
                self.book()
                self.names.pop()

        return staged


@contextmanager
def stages(agent: CVPO) -> Iterator[Stage]:
    """Watch the stages of ``agent.update()`` until the block ends.

    Methods are replaced on classes, not on instances: components are frozen, and what they are stays true. A place
    that no longer exists is left out, and its work shows in the stage around it.
    """
    stage, config, learner = Stage(), agent.config, agent.learner
    target = {"critic": "target", "target": "target"}
    places: list[tuple[Any, str, str, dict[str, str]]] = [
        (type(agent.store), "sample", "sampling", {}),
        (type(agent.store), "reprioritise", "sampling", {}),
        (type(agent.source), "select", "sampling", {}),
        (type(learner), "evaluate_policy", "critic", {}),
        (type(config.returns), "targets", "target", {}),
        (type(config.critic), "evaluate", "particles", target),
        (learner.old_policy, "forward", "particles", target),
        (type(learner), "_expectation", "particles", {}),
        (type(config.estep), "solve", "dual", {}),
        (cvpo.learner, "expectation_metrics", "metrics", {}),
        (type(config.fit), "fit", "fit", {}),
        (cvpo.mstep.fit, "guard", "guard", {}),
        (type(learner.averages), "step", "averages", {}),
    ]
    with ExitStack() as stack:
        for owner, attribute, name, inside in places:
            if hasattr(owner, attribute):
                call = getattr(owner, attribute)
                stack.enter_context(patch.object(owner, attribute, stage.around(call, name, inside)))
        stage.since = time.perf_counter()
        yield stage
        stage.book()
