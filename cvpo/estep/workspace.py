"""One small problem on a host, passed over in memory that NumPy's arrays and torch's tensors share.

At the size of a training batch, a pass in fresh tensors spends more on calls and on memory that is not in the cache
than on the arithmetic; and NumPy has the faster products, torch the faster rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvpo.estep import fused
from cvpo.estep.lanes import Lanes, Number, One, Vector
from cvpo.estep.passes import LN2, Pass, Stack
from cvpo.estep.units import in_units

LARGEST = 2**17
"""Numbers of (Q_r, Q_c) up to which this was seen to be faster than two threads on tensors."""


def fits(q: Tensor) -> bool:
    """Whether ``q`` [P,S,B,K] is for a :class:`Workspace`: not where a subclass of Tensor is to see what is done."""
    return len(q) == 1 and q.device.type == "cpu" and q.numel() <= LARGEST and type(q) is Tensor


class Workspace:
    """One problem, ``q`` [1,S,B,K] and ``log_prior`` [1,B,K] or None, float64 on the host, ``q`` contiguous.

    ``unit`` [S]: the powers of two that (Q_r, Q_c) are yet to be divided by.
    """

    def __init__(self, q: Tensor, log_prior: Tensor | None, unit: Sequence[float] | None = None) -> None:
        _, signals, states, particles = q.shape
        self.like = q.detach()
        self._scale = np.ones(signals) if unit is None else 1.0 / np.array(unit)
        self._values = self.like.reshape(signals, -1).numpy()
        # f = (z/log 2, Q_c), and w f.
        self._f, self._weighted = np.empty_like(self._values), np.empty_like(self._values)
        np.multiply(self._values[1:], self._scale[1:, None], out=self._f[1:])
        self._features, self._products = torch.from_numpy(self._f), torch.from_numpy(self._weighted)
        self._z = self._features[0].view(states, particles)
        self._log_prior = log_prior
        self._bits = None if log_prior is None else log_prior.detach().reshape(states, particles) / LN2
        self._tilted = self._z if self._bits is None else torch.empty_like(self._z)
        # Of each state: log Σ_k p exp(z − top), without p where it is uniform; top/log 2; the means of f under w.
        self._rows = np.empty((2 + signals, states))
        self._by_particle, self._by_state = np.ones(particles), np.full(states, 1.0 / states)
        self.offset = math.log(particles) if log_prior is None else 0.0

    def prior(self, lanes: Lanes) -> Any:
        """See :meth:`~cvpo.estep.passes.Pass.prior`; in Python numbers."""
        f, first = self._f, self._rows[2:]
        np.multiply(self._values[0], self._scale[0], out=f[0])
        given, particles = self._log_prior, len(self._by_particle)
        p = 1.0 / particles if given is None else given.detach().reshape(-1).exp().numpy()
        np.multiply(f, p, out=self._weighted)
        np.dot(self._weighted.reshape(-1, particles), self._by_particle, out=first.reshape(-1))
        covariance = (self._weighted @ f.T - first @ first.T) / len(self._by_state)
        return [*(first @ self._by_state).tolist(), *covariance.reshape(-1).tolist()]

    def moments(self, lanes: Lanes, mix: Vector, keep: bool, wanted: Number) -> tuple[list[float], Tensor]:
        """See :meth:`~cvpo.estep.passes.Pass.moments`; in Python numbers, and w is at hand anyhow."""
        f, rows, first = self._f, self._rows, self._rows[2:]
        np.dot(mix * self._scale, self._values, out=f[0])
        if self._bits is not None:
            torch.add(self._z, self._bits, out=self._tilted)
        top = self._tilted.amax(-1, keepdim=True)
        self._z.sub_(top)
        if self._bits is not None:
            self._tilted.sub_(top)
        # Not shared: these are the weights of the point, which may be kept.
        mass = self._tilted.exp2()
        total = mass.numpy() @ self._by_particle
        weights = mass.mul_(torch.from_numpy(1.0 / total).unsqueeze(1)).unsqueeze(0)
        torch.mul(weights.view(-1), self._features, out=self._products)
        np.log(total, out=rows[0])
        rows[1] = top.view(-1).numpy()
        np.dot(self._weighted.reshape(-1, len(self._by_particle)), self._by_particle, out=first.reshape(-1))
        covariance = (self._weighted @ f.T - first @ first.T) / len(self._by_state)
        return [*(rows @ self._by_state).tolist(), *covariance.reshape(-1).tolist()], weights


def passes_over(q: Tensor, log_prior: Tensor | None, unit: Vector | None = None) -> Pass:
    """Problems as they are best passed over many times; with ``unit``, one that belongs to the callee and is yet to be
    divided by these powers of two."""
    if unit is None and fused.fits(q) and not (torch.is_grad_enabled() and q.requires_grad):
        return fused.over(q, log_prior)
    if fits(q):
        return Workspace(q, log_prior, unit)
    if unit is not None:
        in_units(q, One.join(unit, q))
    return Stack(q, log_prior)
