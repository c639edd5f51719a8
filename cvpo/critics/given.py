"""Costs that are known functions of observation and action, beside a critic that learns the other signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn

from cvpo.critics.protocol import registry
from cvpo.critics.targets import Bootstrap, bootstrap_of
from cvpo.errors import ConfigError
from cvpo.handover import require_tensor
from cvpo.plain import imported
from cvpo.types import Batch

CostFunction = Callable[[Tensor, Tensor], Tensor]


def _function(spec: Any) -> CostFunction | None:
    """A function from itself or from ``"package.module:function"``; None where the cost is learned."""
    if spec is None or callable(spec):
        return spec
    found = imported("cost function", spec) if isinstance(spec, str) else None
    if not callable(found):
        what = f"{spec!r}, which is a {type(found).__name__}" if isinstance(spec, str) else repr(spec)
        raise ConfigError(
            f"GivenCost.costs has {what}; allowed: a function, its path 'package.module:function', or None"
        )
    return found


def _costs(value: Any) -> tuple[Any, ...]:
    """One function or path stands for itself."""
    if isinstance(value, str) or callable(value):
        return (value,)
    if not isinstance(value, (list, tuple)):
        raise ConfigError(
            f"GivenCost.costs is {value!r}; allowed: functions or their paths, one for each cost, or None"
        )
    return tuple(value)


@attrs.frozen
class GivenCost:
    """``Q_c,m(o, a) = f_m(o, a)`` for the costs that are given, every other signal by ``critic``.

    ``costs`` has one entry for each cost: a function of [...,B,O] and [...,B,K,D] that returns [...,B,K], its path
    ``"package.module:function"`` (which a saved run finds again), or None for a cost that is learned. Its values are
    what the E-step holds to the limit, in the scale of Q: for a cost of the single step, limited step by step, give
    that cost with ``limit="q"`` and ``limit_kind="discounted"``. Observations come as networks see them, with
    ``obs_pieces`` in pieces and with ``normalise_obs`` normalised.
    ``learned_by`` is ``critic`` as an instance.
    """

    costs: tuple[Any, ...] = attrs.field(default=(), converter=_costs)
    critic: Any = "mlp"

    summary: ClassVar[str] = "costs that are known functions of observation and action; the rest by another critic"

    learned_by: Any = attrs.field(init=False, repr=False, eq=False)
    _functions: tuple[CostFunction | None, ...] = attrs.field(init=False, repr=False, eq=False)
    _learned: tuple[int, ...] = attrs.field(init=False, repr=False, eq=False)
    _bootstrap: Bootstrap = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        functions = tuple(map(_function, self.costs))
        learned = (0, *(m for m, function in enumerate(functions, start=1) if function is None))
        # It may come from a file, which makes components and nothing else.
        registry.check_safe(self.critic)
        inner = registry.resolve(self.critic)
        if not callable(getattr(inner, "build", None)):
            raise ConfigError(f"GivenCost.critic is {self.critic!r}; allowed: a critic, {', '.join(registry.names())}")
        for name, value in (
            ("learned_by", inner),
            ("_functions", functions),
            ("_learned", learned),
            ("_bootstrap", bootstrap_of(inner)),
        ):
            object.__setattr__(self, name, value)

    @property
    def signals(self) -> int | None:
        """S where ``costs`` are told, which it must then be."""
        return 1 + len(self.costs) if self.costs else None

    @property
    def given(self) -> tuple[int, ...]:
        """The signals that are not learned."""
        return tuple(m for m, function in enumerate(self._functions, start=1) if function is not None)

    @property
    def distributional(self) -> bool:
        """Whether ``critic`` learns the distribution of the return."""
        return getattr(self.learned_by, "distributional", False)

    def build(
        self,
        obs_size: int,
        action_size: int,
        signals: int,
        population: int = 1,
        generator: torch.Generator | None = None,
    ) -> nn.Module:
        """The network of the learned signals. Raises ConfigError where ``costs`` has not one entry for each cost."""
        if self.costs and len(self.costs) != signals - 1:
            raise ConfigError(f"GivenCost.costs has {len(self.costs)} entries; allowed: one for each of {signals - 1}")
        learned = len(self._learned) if self.costs else signals
        return self.learned_by.build(obs_size, action_size, learned, population, generator)

    def evaluate(self, net: nn.Module, obs: Tensor, actions: Tensor) -> Tensor:
        """Q-values of all signals: [...,B,O] and [...,B,K,D] to [...,S,B,K]."""
        q = self.learned_by.evaluate(net, obs, actions)
        return self._placed(q, -3, lambda function: _value(function, obs, actions).to(q.dtype))

    @property
    def ensemble(self) -> Callable[..., tuple[Tensor, ...]]:
        """What the members of ``critic`` say, [...,E,B,K] for every signal, if it shows them; a given cost is one."""
        inner = self.learned_by.ensemble

        def members(net: nn.Module, obs: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
            learned = inner(net, obs, actions)
            if not self.costs:
                return learned
            rest = iter(learned[1:])
            costs = (next(rest) if f is None else _value(f, obs, actions).unsqueeze(-3) for f in self._functions)
            return (learned[0], *costs)

        return members

    def bootstrap(self, net: nn.Module, obs: Tensor, actions: Tensor) -> Tensor:
        """That of ``critic``; a given cost has no target, and 0 stands in its place."""
        values = self._bootstrap(net, obs, actions)
        return self._placed(values, -2, lambda function: torch.zeros_like(values[..., 0, :]))

    def loss(self, net: nn.Module, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of ``critic`` on the signals that are learned."""
        if self.costs:
            target = target[..., list(self._learned), :]
        return self.learned_by.loss(net, batch, target)

    def residual(self, net: nn.Module, batch: Batch, target: Tensor) -> Tensor:
        """That of ``critic``; 0 for a given cost."""
        own = target[..., list(self._learned), :] if self.costs else target
        values = self.learned_by.residual(net, batch, own)
        return self._placed(values, -2, lambda function: torch.zeros_like(values[..., 0, :]))

    def shift(self, net: nn.Module, by: Tensor) -> None:
        """That of ``critic``, for the signals that are learned."""
        self.learned_by.shift(net, by[..., list(self._learned)] if self.costs else by)

    def _placed(self, values: Tensor, axis: int, given: Callable[[CostFunction], Tensor]) -> Tensor:
        """``values`` of the learned signals along ``axis``, those of the given costs put between them."""
        if not self.costs:
            return values
        learned = iter(values.unbind(axis))
        parts = [next(learned), *(next(learned) if f is None else given(f) for f in self._functions)]
        return torch.stack(parts, axis)


def _value(function: CostFunction, obs: Tensor, actions: Tensor) -> Tensor:
    found = function(obs, actions)
    name = getattr(function, "__name__", function)
    require_tensor(f"what cost function {name!r} gives for actions {list(actions.shape)}", found, actions.shape[:-1])
    return found
