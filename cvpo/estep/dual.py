"""The mathematics of the E-step dual, in one place: value, gradient, Hessian and weights in one pass over the data.

Shape legend: ``P`` problems, ``M`` costs, ``S = 1 + M`` signals (reward first), ``B`` states, ``K`` particles. With
z = (Q_r − λᵀQ_c)/η and w = softmax_k(z + log p)::

    g(η, λ)  = η ε + λᵀd + η mean_b log Σ_k p_bk exp z_bk
    ∂g/∂η    = ε − mean_b KL(w_b || p_b)            ∂g/∂λ_m = d_m − mean_b Σ_k w_bk Q_c,mbk
    ∇²g      = (1/η) mean_b Cov_{w_b}[(z, Q_c,1 … Q_c,M)]

Everything is tensors in, tensors out, without host synchronisation, so that it can be compiled.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Evaluation(NamedTuple):
    """The dual at one point: ``value`` [P], ``gradient`` [P,S] (η first), ``hessian`` [P,S,S], ``weights`` [P,B,K]."""

    value: Tensor
    gradient: Tensor
    hessian: Tensor
    weights: Tensor


def exponents(q: Tensor, x: Tensor) -> Tensor:
    """z = (Q_r − λᵀQ_c)/η as [P,B,K], from ``q`` [P,S,B,K] and ``x`` = (η, λ) [P,S]."""
    eta = x[:, :1]
    mix = torch.cat([torch.ones_like(eta), -x[:, 1:]], dim=1) / eta
    return torch.matmul(mix.unsqueeze(1), q.flatten(2)).view(q.shape[0], q.shape[2], q.shape[3])


def softmax_weights(q: Tensor, log_prior: Tensor | None, x: Tensor) -> Tensor:
    """w = softmax_k(z + log p) [P,B,K]; ``log_prior`` None is the uniform prior."""
    z = exponents(q, x)
    return torch.softmax(z if log_prior is None else z + log_prior, dim=-1)


def evaluate(q: Tensor, log_prior: Tensor | None, limit: Tensor, epsilon: Tensor, x: Tensor) -> Evaluation:
    """g, ∇g, ∇²g and w at ``x`` = (η, λ) [P,S].

    ``q`` [P,S,B,K], ``log_prior`` [P,B,K] normalised or None (uniform), ``limit`` d [P,M], ``epsilon`` [P].
    """
    z = exponents(q, x)
    tilted = z if log_prior is None else z + log_prior
    top = tilted.amax(-1, keepdim=True)
    shifted = tilted - top
    mass = shifted.exp()
    total = mass.sum(-1, keepdim=True)
    weights = mass / total
    # log of Σ_k p exp(z - top); z itself is shifted too, so that its moments lose nothing where it is large.
    log_mean = total.log() - math.log(z.shape[-1]) if log_prior is None else total.log()
    features = torch.cat([(shifted if log_prior is None else z - top).unsqueeze(1), q[:, 1:]], dim=1)
    weighted = weights.unsqueeze(1) * features
    first = weighted.sum(-1)
    second = torch.matmul(weighted.flatten(2), features.flatten(2).mT)
    eta = x[:, 0]
    hessian = (second - torch.matmul(first, first.mT)) / (eta * z.shape[1]).view(-1, 1, 1)
    slack = torch.cat([(epsilon + log_mean.mean((1, 2))).unsqueeze(1), limit], dim=1)
    value = eta * (epsilon + (top + log_mean).mean((1, 2))) + (x[:, 1:] * limit).sum(1)
    return Evaluation(value, slack - first.mean(-1), hessian, weights)


def kl(weights: Tensor, log_prior: Tensor) -> Tensor:
    """KL(w_b || p_b) [...,B] as Σ_k (w log(w/p) − w + p) with 0·log 0 = 0: every term >= 0, so nothing cancels.

    The form is exact for Σ_k w = 1 and to second order in the rounding of w otherwise.
    """
    ratio = torch.where(weights > 0, weights.log() - log_prior, 0.0)
    return (weights * ratio - weights + log_prior.exp()).sum(-1)
