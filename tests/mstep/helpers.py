"""Small policies, M-step problems, and random Gaussians with particles."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvpo.distributions import Categorical, Gaussian

DOUBLE = torch.float64


class Net(nn.Module):
    """Two hidden layers and a head: diagonal, Cholesky or categorical."""

    def __init__(self, kind: str, size: int = 2, obs_size: int = 3, width: int = 32) -> None:
        super().__init__()
        self.kind, self.size = kind, size
        outputs = {"diagonal": 2 * size, "cholesky": size + size * size, "categorical": size}[kind]
        layers = [nn.Linear(obs_size, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, outputs)]
        self.layers = nn.Sequential(*layers)

    def forward(self, obs: Tensor):
        y = self.layers(obs)
        if self.kind == "categorical":
            return Categorical(y)
        mean, rest = y[..., : self.size], y[..., self.size :]
        if self.kind == "diagonal":
            return Gaussian(mean, F.softplus(rest) + 1e-3)
        rest = rest.unflatten(-1, (self.size, self.size))
        return Gaussian(mean, rest.tril(-1) + torch.diag_embed(F.softplus(rest.diagonal(dim1=-2, dim2=-1)) + 1e-3))


class Table(nn.Module):
    """A mean and a log deviation for each state, [*population, B, D]; observations are not read."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(shape))
        self.log = nn.Parameter(torch.zeros(shape))

    def forward(self, obs: Tensor):
        # Not the parameter itself, which an update would change under π_old.
        return Gaussian(self.mean.clone(), self.log.exp())


def problem(policy: nn.Module, obs: Tensor, count: int = 8, sharpness: float = 2.0):
    """π_old, its parameters, and particles weighted towards a point that depends on the state."""
    with torch.no_grad():
        old = policy(obs).detach()
        old_params = [p.detach().clone() for p in policy.parameters()]
        if old.kind == "categorical":
            return old, old_params, None, torch.softmax(old.logits + sharpness * torch.randn_like(old.logits), -1)
        actions = old.sample(count)
        score = -(actions - torch.tanh(obs[..., None, :1])).square().sum(-1)
        return old, old_params, actions, torch.softmax(sharpness * score, -1)


def gaussian(cholesky: bool, shape=(4, 3), seed: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(shape, generator=generator, dtype=DOUBLE)
    scale = torch.rand(shape, generator=generator, dtype=DOUBLE) + 0.3
    if cholesky:
        lower = torch.randn((*shape, shape[-1]), generator=generator, dtype=DOUBLE).tril(-1)
        scale = torch.diag_embed(scale) + 0.4 * lower
    return Gaussian(mean, scale)


def particles(old: Gaussian, count: int, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand((*old.mean.shape[:-1], count), generator=generator, dtype=DOUBLE)
    return old.sample(count, generator), weights / weights.sum(-1, keepdim=True)


def covariance(p: Gaussian) -> Tensor:
    return p.scale_tril() @ p.scale_tril().mT


def second(actions, weights, centre) -> Tensor:
    x = actions - centre.unsqueeze(-2)
    return (weights.unsqueeze(-1) * x).mT @ x
