"""The terms of a fit, as its projection gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cvpo.errors import ConfigError
from cvpo.handover import require_tensor
from cvpo.mstep.protocol import Projection


class Terms:
    """What a fit asks of a projection at each policy: its KL terms and its objective, one tensor for all.

    By the projection's own ``joined`` where it has that (:class:`~cvpo.mstep.protocol.Projection`), else by ``kl`` and
    ``objective``. What they give is checked: ConfigError.
    """

    def __init__(
        self, names: Sequence[str], projection: Projection, old: Any, actions: Tensor | None, weights: Tensor
    ) -> None:
        self._names, self._projection = names, projection
        self._old, self._actions, self._weights = old, actions, weights
        # Of its class: who wraps a projection and changes its terms does not mean those of what is wrapped.
        joined = getattr(type(projection), "joined", None)
        self._joined = None if joined is None else joined(projection, old, actions, weights)
        *lead, states = weights.shape[:-1]
        self.shape = (*lead, len(names) + 1, states)

    def by_hand(self) -> Any:
        """The same without autograd, see :class:`~cvpo.mstep.protocol.Projection`, if the projection has that."""
        made = getattr(self._joined, "by_hand", None)
        return None if made is None else made()

    def kls(self, new: Any) -> Tensor:
        """The KL terms [*population, terms, B] in the order of their names."""
        if self._joined is not None:
            return self.all(new)[..., :-1, :]
        return self._stacked(self._divergences(new), self._names)

    def all(self, new: Any) -> Tensor:
        """The KL terms, then the objective [*population, terms + 1, B]."""
        if self._joined is not None:
            found = self._joined(new)
            require_tensor("what the projection's joined gives", found, self.shape)
            return found
        objective = self._projection.objective(self._old, new, self._actions, self._weights)
        return self._stacked([*self._divergences(new), objective], [*self._names, "objective"])

    def _divergences(self, new: Any) -> list[Tensor]:
        kls = self._projection.kl(self._old, new)
        try:
            return [kls[name] for name in self._names]
        except (KeyError, TypeError, IndexError) as error:
            found = sorted(kls) if isinstance(kls, dict) else f"a {type(kls).__name__}"
            raise ConfigError(
                f"the projection's kl gives {found}; allowed: a dict with its bounds' names, {tuple(self._names)}"
            ) from error

    def _stacked(self, values: Sequence[Tensor], names: Sequence[str]) -> Tensor:
        for name, value in zip(names, values, strict=True):
            require_tensor(f"the projection's {name}", value, self._weights.shape[:-1])
        return torch.stack(list(values), -2)
