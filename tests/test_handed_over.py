"""What an agent's parts hand over in an update: looked at by shape and dtype, and never broadcast."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
import gymnasium
import pytest
import torch

import cvpo
from cvpo.buffers.states import states
from cvpo.critics import registry as critics
from cvpo.critics.limits import limits
from cvpo.critics.returns import returns
from cvpo.errors import ConfigError
from cvpo.estep import registry as esteps
from tests.test_edges import ACTIONS, BOX, step


@attrs.frozen
class Changed:
    """A part whose method ``name`` gives what ``change`` makes of its answer."""

    part: Any
    name: str
    change: Callable[..., Any]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.part, name)
        if name != self.name:
            return found
        return lambda *args, **kwargs: self.change(found(*args, **kwargs))


def updated(**parts: Any) -> None:
    agent = cvpo.make_agent(BOX, ACTIONS, cost_limits=(1.0, 2.0), horizon=10, batch_size=8, **parts)
    for _ in range(10):
        agent.observe(step(1, signals=torch.zeros(3, 1)))
    agent.update()


def wrong(family: Any, name: str, method: str, change: Callable[..., Any]) -> Any:
    return Changed(family.create(name), method, change)


def test_what_is_right_goes_through() -> None:
    updated(returns=wrong(returns, "td", "targets", lambda y: y))


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y[..., :1],
        lambda y: torch.cat([y, y[..., 1:, :]], dim=-2),
        lambda y: y[..., :1, :],
        lambda y: y.double(),
        lambda y: 3,
    ],
)
@pytest.mark.parametrize("critic", ["mlp", "quantile"])
def test_targets(critic: str, change: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="targets of the returns"):
        updated(critic=critic, returns=wrong(returns, "td", "targets", change))


@pytest.mark.parametrize("change", [lambda q: q[..., :1, :, :], lambda q: q.double(), lambda q: q.numpy()])
def test_q_values(change: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="the critic's (Q|V)"):
        updated(critic=wrong(critics, "mlp", "evaluate", change))


@pytest.mark.parametrize("change", [lambda d: d[..., :1], lambda d: 7.0, lambda d: torch.cat([d, d])])
def test_thresholds(change: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="the limit's threshold"):
        updated(limit=wrong(limits, "q", "threshold", change))


@pytest.mark.parametrize("found", [(1.0,), (1.0, 2.0, 3.0), 3, ("a", "b"), None])
def test_scheduled_limits(found: Any) -> None:
    schedule = SimpleNamespace(limits=lambda given, steps: found)
    with pytest.raises(ConfigError, match="limit_schedule SimpleNamespace gives"):
        updated(limit_schedule=schedule)


def test_a_schedule_that_goes_wrong_later_is_an_error_then() -> None:
    schedule = SimpleNamespace(limits=lambda given, steps: given if steps < 5 else given[:1])
    with pytest.raises(ConfigError, match="at step"):
        updated(limit_schedule=schedule)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weights", lambda s: attrs.evolve(s, weights=s.weights.double())),
        ("weights", lambda s: attrs.evolve(s, weights=s.weights[:, :1])),
        ("lam", lambda s: attrs.evolve(s, lam=s.lam[:1])),
        ("eta", lambda s: SimpleNamespace(weights=s.weights)),
        ("status", lambda s: attrs.evolve(s, status=s.status.expand(2))),
    ],
)
def test_solutions(name: str, change: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=f"{name} of the E-step's solution"):
        updated(estep=wrong(esteps, "newton", "solve", change))


@attrs.frozen
class Chosen:
    """A source of states that gives what ``change`` makes of the batch's."""

    change: Callable[..., Any]

    def build(self, *args: Any, **kwargs: Any) -> Any:
        source = states.create("replay").build(*args, **kwargs)
        return Changed(source, "select", self.change)


@pytest.mark.parametrize("change", [lambda o: o[:3], lambda o: o[:, :2], lambda o: o.numpy(), lambda o: o.double()])
def test_states(change: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="what states select"):
        updated(states=Chosen(change))


@pytest.mark.parametrize(
    "change", [lambda v: v, lambda v: v.amax(), lambda v: v.detach().amax(-3).numpy(), lambda v: 0.0]
)
def test_aggregations(change: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="what aggregation"):
        updated(critic={"name": "mlp", "cost": change})


def test_given_costs() -> None:
    for function, words in (
        (lambda obs, actions: 3.0, "what cost function .* is a float"),
        (lambda obs, actions: actions[..., 0].numpy(), "what cost function .* is a ndarray"),
        ("math:pi", "a float"),
        (3, "has 3"),
    ):
        with pytest.raises(ConfigError, match=words):
            updated(critic={"name": "given", "costs": (function, None)})


def test_an_aggregation_that_there_is_not_is_named_with_its_field() -> None:
    with pytest.raises(ConfigError, match="cost: unknown aggregation 'foo'"):
        critics.create("mlp", cost="foo")


def test_a_space_without_numbers_is_refused() -> None:
    with pytest.raises(cvpo.CvpoError, match="no numbers in it"):
        cvpo.make_agent(gymnasium.spaces.Box(-1, 1, (0,)), ACTIONS, cost_limits=())
