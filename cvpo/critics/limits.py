"""Cost limits: from the units of an episode to the scale of Q, and which constraint the E-step is given.

Shape legend: ``M`` costs, ``B`` states, ``K`` actions per state; leading ``...`` are independent problems.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import ClassVar, Protocol

import attrs
import numpy as np
from torch import Tensor

from cvpo.errors import ConfigError, suggest
from cvpo.registry import Registry
from cvpo.validators import number, one_of

LIMIT_KINDS = ("episode", "discounted", "step")
MEASURES = ("steps", "episode", "discounted", "critic", "states")

limits = Registry(
    "limit",
    {
        "q": "cvpo.critics.limits:QLimit",
        "policy": "cvpo.critics.limits:PolicyLimit",
        "calibrated": "cvpo.critics.limits:CalibratedLimit",
    },
)


def to_q_scale(
    limit: float, kind: str, gamma: float, horizon: float | Sequence[float], *, terminates: bool = False
) -> float:
    """``d = C(1−γᵀ)/((1−γ)T)`` where the horizon terminates, ``d = C/((1−γ)T)`` where it truncates.

    ``limit`` is an episode sum C (``kind="episode"``), a cost per step c with d = c/(1−γ) (``"step"``), or already a
    discounted sum (``"discounted"``). ``horizon`` T in steps, or the lengths of several episodes where it varies: T is
    then their mean and γᵀ the mean of γ to the power of each. Bootstrapping through a truncation makes Q_c the
    infinite-horizon value, hence the second form; the paper's code uses the first everywhere, which at T = 100 and
    γ = 0.99 is 37 % tighter. Exact where the cost per step does not drift along the episode and lengths do not depend
    on it. Raises ConfigError for another ``kind``, a limit that is not finite, a gamma outside (0, 1) and lengths that
    are not above 0.
    """
    if kind not in LIMIT_KINDS:
        raise ConfigError(f"limit_kind is {kind!r}; {suggest(str(kind), LIMIT_KINDS)}")
    for name, value, allowed in (("limit", limit, "a finite number"), ("gamma", gamma, "a number between 0 and 1")):
        if not isinstance(value, numbers.Real) or not math.isfinite(value) or (name == "gamma" and not 0 < value < 1):
            raise ConfigError(f"{name} is {value!r}; allowed: {allowed}")
    if kind == "discounted":
        return limit
    lengths = np.asarray(horizon, dtype=np.float64)
    if not lengths.size or not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ConfigError(f"horizon is {horizon!r}; allowed: steps > 0, or the lengths of one or more episodes")
    per_step = limit / lengths.mean() if kind == "episode" else limit
    share = 1.0 - np.power(gamma, lengths).mean() if terminates else 1.0
    return float(per_step * share / (1.0 - gamma))


class CostLimit(Protocol):
    """What the E-step's cost limit is, given the Q-values of its own states and actions."""

    measure: str

    def threshold(self, q_cost: Tensor, prior: Tensor | None, limit: Tensor, measured: Tensor, gamma: float) -> Tensor:
        """The limit [...,M] for ``E_w[Q_c]``.

        ``q_cost`` [...,M,B,K]; ``prior`` [...,B,K], None for uniform; ``limit`` [...,M] and ``measured`` [...,M] in
        the scale of Q: the limit d and the policy's own cost J_c as :attr:`measure` says.
        """
        ...


def prior_mean(q_cost: Tensor, prior: Tensor | None) -> Tensor:
    """E_b E_p[Q_c] [...,M]: what the policy costs in the E-step's states, as the critic sees it."""
    return (q_cost.mean(-1) if prior is None else (prior.unsqueeze(-3) * q_cost).sum(-1)).mean(-1)


def prior_variance(q_cost: Tensor, prior: Tensor | None) -> Tensor:
    """E_b Var_p[Q_c] [...,M]: how much of the cost is up to the action."""
    if prior is None:
        return q_cost.var(-1, correction=0).mean(-1)
    prior = prior.unsqueeze(-3)
    mean = (prior * q_cost).sum(-1, keepdim=True)
    return (prior * (q_cost - mean).square()).sum(-1).mean(-1)


def within(stride: float | None, threshold: Tensor, q_cost: Tensor, prior: Tensor | None) -> Tensor:
    """``threshold`` [...,M], or ``stride`` times ``(E_b Var_p[Q_c])^½`` below E_b E_p[Q_c] if that is more.

    To first order the KL ball reaches √(2ε) of these standard deviations: with a smaller stride one cost is seldom
    infeasible, and the reward counts in every step.
    """
    if stride is None or not q_cost.shape[-3]:
        return threshold
    return threshold.maximum(prior_mean(q_cost, prior) - stride * prior_variance(q_cost, prior).sqrt())


@attrs.frozen
class QLimit:
    """``E_b E_w[Q_c] <= d + (1 − ρ) (E_b E_p[Q_c] − d)₊``: the paper's constraint, over the E-step's states.

    ``approach`` ρ in (0, 1]: 1 is the paper's, ``E_b E_w[Q_c] <= d``. With it, states in which no action helps any more
    (old unsafe data, an episode that went wrong) can make the program infeasible for thousands of updates, in which the
    reward does not count. ρ < 1 asks a step for that share of the excess over the limit only, which weights can meet
    inside the KL ball; the fixed point is the same. Where the excess is 0 it is the paper's for every ρ, and with exact
    critics it overshoots and cycles around the limit. ``stride``, if any, bounds what a step is asked for; see
    :func:`within`. Source: CVPO (arXiv 2201.11927), equation 7.
    """

    approach: float = attrs.field(default=1.0, validator=number(gt=0, le=1))
    stride: float | None = attrs.field(default=None, validator=number(gt=0, optional=True))

    summary: ClassVar[str] = "the paper's: mean of E_w[Q_c] over the E-step's states below the limit"
    measure: ClassVar[str] = "states"

    def threshold(self, q_cost: Tensor, prior: Tensor | None, limit: Tensor, measured: Tensor, gamma: float) -> Tensor:
        """``d + (1 − ρ) (E_b E_p[Q_c] − d)₊``, or a stride below E_b E_p[Q_c] if that is more; :class:`CostLimit`."""
        if self.approach < 1.0:
            limit = limit + (1.0 - self.approach) * (prior_mean(q_cost, prior) - limit).clamp(min=0.0)
        return within(self.stride, limit, q_cost, prior)


@attrs.frozen
class PolicyLimit:
    """``E_b E_w[Q_c] <= E_b E_p[Q_c] + (1−γ) κ [(d − J_c)₊ − R (J_c − d)₊]``: the performance-difference form.

    The advantage of the step is bounded by the policy's own slack, so that J_c <= d at any fixed point, for any
    full-support states, and the constraint is feasible whenever a step towards safety is small. ``measure`` says what
    J_c is: ``"episode"``, the mean realised episode cost, converted as the limit is (all steps of an episode count
    alike): unbiased, but as late as episodes are long; ``"steps"``, the mean realised cost of the newest steps over
    1−γ: the same without waiting for the ends of episodes; ``"discounted"``, the mean realised discounted cost from the
    episode's start; ``"critic"``, the critic's value at recent episode starts; ``"states"``, the critic's own
    E_b E_p[Q_c], for states of the policy's own episodes the cost per step over 1−γ: at once, but with the critic's
    bias. ``rate`` κ in (0, 1] is the share of the slack that one step may use: 1 is the theorem's; a measurement that
    is W updates old asks for about the same correction W times, and a small κ keeps that from overshooting.
    ``recovery`` R >= 1 multiplies an excess over the limit, 1 is the theorem's: a critic that knows the advantage of
    actions only roughly takes cost away more slowly than it believes, while the reward goes on pulling. Give a
    ``stride`` with it, see :func:`within`. The fixed point is the same for every κ and R. Source: Kakade & Langford
    (2002), lemma 6.1; Achiam et al. (2017), corollary 2.
    """

    measure: str = attrs.field(default="steps", validator=one_of(MEASURES))
    rate: float = attrs.field(default=1.0, validator=number(gt=0, le=1))
    recovery: float = attrs.field(default=1.0, validator=number(ge=1))
    stride: float | None = attrs.field(default=None, validator=number(gt=0, optional=True))

    summary: ClassVar[str] = "performance difference: the step's cost advantage below the policy's own slack"

    def threshold(self, q_cost: Tensor, prior: Tensor | None, limit: Tensor, measured: Tensor, gamma: float) -> Tensor:
        """``E_b E_p[Q_c] + (1−γ) κ (d − J_c)``, an excess R times, or a stride below E_b E_p[Q_c] if that is more;
        :class:`CostLimit`."""
        own = prior_mean(q_cost, prior)
        slack = limit - (own if self.measure == "states" else measured)
        slack = slack.minimum(self.recovery * slack)
        return within(self.stride, own + (1.0 - gamma) * self.rate * slack, q_cost, prior)


@attrs.frozen
class CalibratedLimit:
    """``E_b E_w[Q_c] <= d + κ (Q_c(o₀, a₀) − Σ_t γᵗ c_t)``: the paper's constraint, corrected by the critic's bias.

    The bias is the mean, over the newest episodes, of what the critic says at their first step less their realised
    discounted cost, where a truncated episode is completed by the critic's value of its last observation. A critic that
    underestimates tightens the limit by as much. ``share`` κ in (0, 1] of the bias is corrected. It holds for episode
    starts; other states may be biased otherwise. Give a ``stride`` with it, see :func:`within`.
    """

    share: float = attrs.field(default=1.0, validator=number(gt=0, le=1))
    stride: float | None = attrs.field(default=None, validator=number(gt=0, optional=True))

    summary: ClassVar[str] = "the paper's, corrected by the critic's bias measured on the newest episodes"
    measure: ClassVar[str] = "bias"

    def threshold(self, q_cost: Tensor, prior: Tensor | None, limit: Tensor, measured: Tensor, gamma: float) -> Tensor:
        """``d + κ · bias``, with the bias as ``measured``, or a stride below E_b E_p[Q_c] if that is more;
        :class:`CostLimit`."""
        return within(self.stride, limit + self.share * measured, q_cost, prior)
