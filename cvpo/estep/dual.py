"""The mathematics of the E-step dual, in one place: value, gradient, Hessian and weights in one pass over the data.

Shape legend: ``P`` problems, ``M`` costs, ``S = 1 + M`` signals (reward first), ``B`` states, ``K`` particles. With
z = (Q_r − λᵀQ_c)/η and w = softmax_k(z + log p)::

    g(η, λ)  = η ε + λᵀd + η mean_b log Σ_k p_bk exp z_bk
    ∂g/∂η    = ε − mean_b KL(w_b || p_b)            ∂g/∂λ_m = d_m − mean_b Σ_k w_bk Q_c,mbk
    ∇²g      = (1/η) mean_b Cov_{w_b}[(z, Q_c,1 … Q_c,M)]

But for a :class:`~cvpo.estep.workspace.Workspace`, everything is tensors in, tensors out, without host synchronisation,
so that it can be compiled. The passes themselves are in :mod:`cvpo.estep.passes`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cvpo.estep.lanes import Lanes, Matrix, Number, Vector
from cvpo.estep.passes import LN2, Pass, Stack, parts_of
from cvpo.estep.stacks import Many


class Evaluation(NamedTuple):
    """The dual at one point: ``value`` [P], ``gradient`` [P,S] (η first), ``hessian`` [P,S,S], ``weights`` [P,B,K]."""

    value: Tensor
    gradient: Tensor
    hessian: Tensor
    weights: Tensor


def exponents(q: Tensor, x: Tensor) -> Tensor:
    """z = (Q_r − λᵀQ_c)/η as [P,B,K], from ``q`` [P,S,B,K] and ``x`` = (η, λ) [P,S]."""
    return torch.bmm(_mix(x), q.flatten(2)).view(q.shape[0], q.shape[2], q.shape[3])


def softmax_weights(q: Tensor, log_prior: Tensor | None, x: Tensor) -> Tensor:
    """w = softmax_k(z + log p) [P,B,K]; ``log_prior`` None is the uniform prior."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        z = exponents(q, x)
        return torch.softmax(z if log_prior is None else z + log_prior, dim=-1)
    weights, mix = q.new_empty((len(q), *q.shape[2:])), _mix(x) / LN2
    for part in parts_of(q):
        # In place, as softmax takes a third longer on rows of 256 and five times as long on rows of 16.
        mass = weights[part]
        torch.bmm(mix[part], q[part].flatten(2), out=mass.view(len(mass), 1, -1))
        if log_prior is not None:
            mass.add_(log_prior[part], alpha=1.0 / LN2)
        mass.sub_(mass.amax(-1, keepdim=True)).exp2_()
        mass.mul_(mass.sum(-1, keepdim=True).reciprocal_())
    return weights


def _mix(x: Tensor) -> Tensor:
    eta = x[:, :1]
    return (torch.cat([torch.ones_like(eta), -x[:, 1:]], dim=1) / eta).unsqueeze(1)


def evaluate(q: Tensor, log_prior: Tensor | None, limit: Tensor, epsilon: Tensor, x: Tensor) -> Evaluation:
    """g, ∇g, ∇²g and w at ``x`` = (η, λ) [P,S].

    ``q`` [P,S,B,K], ``log_prior`` [P,B,K] normalised or None (uniform), ``limit`` d [P,M], ``epsilon`` [P].
    """
    value, gradient, hessian, weights = evaluate_in(
        Many, Stack(q, log_prior), limit.unbind(1), epsilon, x.unbind(1), True
    )
    assert weights is not None
    rows = torch.stack([torch.stack(row, dim=1) for row in hessian], dim=1)
    # Autograd is to find the limits even where there are none.
    slack = torch.cat([torch.stack(gradient, dim=1), limit[:, :0]], dim=1)
    return Evaluation(value, slack, rows, weights)


def mix_of(x: Vector) -> Vector:
    """The factors of (Q_r, Q_c) in z/log 2, by components."""
    bits = 1.0 / (LN2 * x[0])
    return (bits, *[-lam * bits for lam in x[1:]])


def evaluate_in(
    lanes: Lanes, data: Pass, limit: Vector, epsilon: Number, x: Vector, keep: bool, wanted: Number = True
) -> tuple[Number, Vector, Matrix, Tensor | None]:
    """:func:`evaluate` on components: (η, λ) and what belongs to them in the numbers of ``lanes``.

    w if to ``keep`` and kept by ``data``; what is not ``wanted`` may be of any value.
    """
    eta = x[0]
    (log_total, top, *rest), weights = data.moments(lanes, mix_of(x), keep, wanted)
    first, second = rest[: len(x)], rest[len(x) :]
    log_mean = log_total - data.offset
    value = eta * (epsilon + (LN2 * top + log_mean))
    for lam, bound in zip(x[1:], limit, strict=True):
        value = value + lam * bound
    gradient = (epsilon + log_mean - LN2 * first[0], *[a - b for a, b in zip(limit, first[1:], strict=True)])
    # Here and in the steps lists are made on the way to tuples, which takes less of a small problem than generators.
    units = [LN2, *[1.0] * len(limit)]
    hessian = tuple(
        [tuple([second[len(x) * i + j] * (a * b) / eta for j, b in enumerate(units)]) for i, a in enumerate(units)]
    )
    return value, gradient, hessian, weights


def kl(weights: Tensor, log_prior: Tensor) -> Tensor:
    """KL(w_b || p_b) [...,B] as Σ_k (w log(w/p) − w + p) with 0·log 0 = 0: every term >= 0, so nothing cancels.

    The form is exact for Σ_k w = 1 and to second order in the rounding of w otherwise.
    """
    ratio = torch.where(weights > 0, weights.log() - log_prior, 0.0)
    return (weights * ratio - weights + log_prior.exp()).sum(-1)
