"""The E-step problem. Shape legend: ``...`` independent problems, ``M`` costs, ``B`` states, ``K`` particles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from cvpo.errors import ProblemError


@attrs.frozen(init=False, eq=False)
class DualProblem:
    """max_w mean_b Σ_k w_bk Q_r  s.t.  mean_b Σ_k w_bk Q_c,m <= d_m,  mean_b KL(w_b || p_b) <= ε,  Σ_k w_bk = 1.

    ``q_reward`` [...,B,K]; ``q_cost`` [...,M,B,K], or None for M = 0; ``cost_limit`` d [...,M], in the units of
    ``q_cost`` (not an episode sum); ``kl_epsilon`` ε > 0 [...], in nats; ``log_prior`` log p [...,B,K], uniform when
    None, normalised here over the particles, −inf allowed. Limits and ε are also taken as floats and broadcast; both
    are kept in float64. Leading dimensions are independent problems.

    Raises ProblemError for shapes and dtypes that do not fit. Values are not read here (that would wait for the
    device): :meth:`check` reads them. Source: CVPO (arXiv 2201.11927), equation (5) and its sampled form.
    """

    q_reward: Tensor
    q_cost: Tensor
    cost_limit: Tensor
    kl_epsilon: Tensor
    log_prior: Tensor | None

    def __init__(
        self,
        q_reward: Tensor,
        q_cost: Tensor | None,
        cost_limit: Tensor | Sequence[float] | float | None,
        kl_epsilon: Tensor | float,
        log_prior: Tensor | None = None,
    ) -> None:
        for name, value in (("q_reward", q_reward), ("q_cost", q_cost), ("log_prior", log_prior)):
            if not isinstance(value, Tensor) and (value is not None or name == "q_reward"):
                raise ProblemError(f"{name} is a {type(value).__name__}; allowed: a tensor")
        shape = tuple(q_reward.shape)
        if len(shape) < 2 or 0 in shape[-2:]:
            raise ProblemError(f"q_reward has shape {list(shape)}; allowed: [..., B, K] with B, K >= 1")
        _check_float("q_reward", q_reward)
        lead = shape[:-2]
        if q_cost is None:
            q_cost = q_reward.new_empty((*lead, 0, *shape[-2:]))
        if q_cost.ndim != len(shape) + 1 or q_cost.shape[:-3] != lead or q_cost.shape[-2:] != shape[-2:]:
            allowed = "[" + ", ".join([*map(str, lead), "M", *map(str, shape[-2:])]) + "]"
            raise ProblemError(f"q_cost has shape {list(q_cost.shape)}; allowed: {allowed}, to match q_reward")
        _check_float("q_cost", q_cost)
        costs = q_cost.shape[-3]
        if cost_limit is None:
            if costs:
                raise ProblemError(f"cost_limit is None; allowed with {costs} costs: a float or [..., {costs}]")
            cost_limit = 0.0
        elif not costs and _several(cost_limit):
            raise ProblemError("cost_limit is given, and q_cost is not; allowed without costs: None")
        if log_prior is not None:
            if tuple(log_prior.shape) != shape:
                raise ProblemError(f"log_prior has shape {list(log_prior.shape)}; allowed: {list(shape)}, or None")
            _check_float("log_prior", log_prior)
            log_prior = torch.log_softmax(log_prior.to(torch.float64), dim=-1)
        self.__attrs_init__(  # type: ignore[attr-defined]
            q_reward=q_reward,
            q_cost=q_cost,
            cost_limit=_broadcast("cost_limit", cost_limit, (*lead, costs), q_reward.device),
            kl_epsilon=_broadcast("kl_epsilon", kl_epsilon, lead, q_reward.device),
            log_prior=log_prior,
        )

    @property
    def costs(self) -> int:
        """M, the number of costs."""
        return self.q_cost.shape[-3]

    @property
    def log_p(self) -> Tensor:
        """log p [...,B,K] in float64, the uniform prior written out."""
        if self.log_prior is not None:
            return self.log_prior
        uniform = torch.full_like(self.q_reward, self.q_reward.shape[-1], dtype=torch.float64)
        return -uniform.log()

    def check(self) -> DualProblem:
        """The problem itself. Raises ProblemError for non-finite values, ε <= 0, or a state without prior mass."""
        for name in ("q_reward", "q_cost", "cost_limit", "kl_epsilon"):
            value = getattr(self, name)
            bad = int((~torch.isfinite(value)).sum())
            if bad:
                raise ProblemError(f"{name} has {bad} non-finite of {value.numel()} values; allowed: finite values")
        if self.log_prior is not None and bool(self.log_prior.isnan().any()):
            raise ProblemError("log_prior has NaN, +inf or a state with only -inf; allowed: finite values and -inf")
        if bool((self.kl_epsilon <= 0).any()):
            raise ProblemError(f"kl_epsilon is {self.kl_epsilon.min().item()}; allowed: > 0")
        return self


def _several(limits: Any) -> bool:
    """Whether ``limits`` are given one by one: what has no numbers in it is none."""
    listed = isinstance(limits, Tensor | Sequence | np.ndarray) and not isinstance(limits, str)
    return listed and torch.as_tensor(limits).numel() > 0


def _check_float(name: str, value: Tensor) -> None:
    if not value.is_floating_point():
        raise ProblemError(f"{name} has dtype {value.dtype}; allowed: a floating-point dtype")


def _broadcast(
    name: str, value: Tensor | Sequence[float] | float, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    try:
        value = torch.as_tensor(value, dtype=torch.float64, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ProblemError(f"{name} is {value!r}; allowed: a float, or a tensor or list of them") from error
    try:
        return value.expand(shape)
    except RuntimeError:
        message = f"{name} has shape {list(value.shape)}; allowed: a float, or what broadcasts to {list(shape)}"
        raise ProblemError(message) from None
