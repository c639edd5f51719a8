"""What a policy promises, one property each: drawn from a :data:`Case`, AssertionError where it breaks."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from cvpo.distributions.checks import check_distribution, check_network
from cvpo.errors import CvpoError
from cvpo.population import adopt_network
from cvpo.testing.drawing import require, same

OBS = 3
SAMPLES = 4096
STATES = 64
Case = tuple[int, int, float, int]
"""States B, dimensions D (or actions), scale of the observations, seed."""


def check_form(policy: Any, case: Case) -> None:
    """What an agent looks at, of these observations; samples, log-likelihoods and entropies of their shapes."""
    states, size, _, seed = case
    net, obs = _drawn(policy, case)
    before = obs.clone()
    try:
        check_network(net, OBS, size, discrete=policy.discrete)
        pi = net(obs)
        check_distribution(pi, "the policy")
    except CvpoError as error:
        raise AssertionError(str(error)) from error
    require(torch.equal(before, obs), "the network changed its observations in place")
    actions = pi.sample(5, torch.Generator().manual_seed(seed))
    for name, value, shape in (
        ("mode", pi.mode, (states, size)),
        ("a sample of 5", actions, (states, 5, size)),
        ("log_prob", pi.log_prob(actions), (states, 5)),
        ("entropy", pi.entropy(), (states,)),
    ):
        require(value.shape == shape, f"{name} has shape {tuple(value.shape)}; allowed: {shape}")
        require(value.dtype == torch.float32, f"{name} is {value.dtype}; allowed: torch.float32, as the observations")
        require(torch.isfinite(value).all(), f"{name} has values that are not finite")


def check_rows(policy: Any, case: Case) -> None:
    """Observations in another order, or alone, have the same distributions; so have those of a further axis."""
    net, obs = _drawn(policy, case)
    whole = _told(net(obs))
    same("observations in reverse", _told(net(obs.flip(0))).flip(0), whole)
    same("the first observation alone", _told(net(obs[:1])), whole[:1])
    same("two batches of the same", _told(net(torch.stack([obs, obs]))), torch.stack([whole, whole]))


def check_build(policy: Any, case: Case) -> None:
    """One seed, one network."""
    net, obs = _built(policy, case)
    again, _ = _built(policy, case)
    pairs = zip(net.parameters(), again.parameters(), strict=True)
    require(all(torch.equal(a, b) for a, b in pairs), "a network from the same generator has other parameters")
    same("a network from the same generator", again(obs).mode, net(obs).mode)


def check_samples(policy: Any, case: Case) -> None:
    """Drawn again the same, cut from the graph; −log π of many is the entropy on the mean."""
    # A covariance near singular, as large observations may give, is for log π to resolve, which float32 cannot.
    net, obs = _drawn(policy, (*case[:2], min(case[2], 1.0), case[3]))
    pi = net(obs)
    one, other = (pi.sample(SAMPLES, torch.Generator().manual_seed(case[-1])) for _ in range(2))
    require(torch.equal(one, other), "samples from the same generator differ")
    require(not one.requires_grad, "samples carry a gradient; allowed: cut from the graph")
    surprise = -pi.log_prob(one).detach().double()
    # Six standard errors, and what categories add that may not have been drawn.
    room = 6.0 * surprise.std(-1) / SAMPLES**0.5 + 0.02
    off = (surprise.mean(-1) - pi.entropy().detach()).abs()
    require(
        (off <= room).all(),
        f"samples have -log π of {surprise.mean(-1).tolist()} on the mean, entropy says {pi.entropy().tolist()}",
    )


def check_gradients(policy: Any, case: Case) -> None:
    """Every parameter that asks for one has a gradient, and it is finite and not 0."""
    # So many observations, and so small ones, that not all of a layer's units are at rest or saturated.
    net, obs = _drawn(policy, (STATES, case[1], min(case[2], 1.0), case[3]))
    pi = net(obs)
    pi.log_prob(pi.sample(4, torch.Generator().manual_seed(case[-1]))).sum().backward()
    grads = {name: p.grad for name, p in net.named_parameters() if p.requires_grad}
    missing = [name for name, grad in grads.items() if grad is None or not bool(grad.any())]
    require(not missing, f"the log-likelihood does not reach the parameters {missing}")
    lost = [name for name, grad in grads.items() if not bool(torch.isfinite(grad).all())]  # type: ignore[arg-type]
    require(not lost, f"the gradients of {lost} are not finite")


def check_population(policy: Any, case: Case) -> None:
    """With the parameters of two networks, a network of two members has the distributions of each; of a policy whose
    ``build`` takes a ``population``."""
    if "population" not in inspect.signature(policy.build).parameters:
        return
    states, size, _, seed = case
    alone = [_drawn(policy, (states, size, scale, seed + i)) for i, scale in enumerate((1.0, 2.0))]
    both = policy.build(OBS, size, population=2, generator=torch.Generator().manual_seed(seed))
    expected = [_told(net(obs)) for net, obs in alone]
    try:
        adopt_network("the policy", both, [net for net, _ in alone])
    except CvpoError as error:
        raise AssertionError(str(error)) from error
    found = _told(both(torch.stack([obs for _, obs in alone])))
    for i, own in enumerate(expected):
        same(f"member {i} of a population", found[i], own)


def _built(policy: Any, case: Case) -> tuple[nn.Module, Tensor]:
    states, size, scale, seed = case
    generator = torch.Generator().manual_seed(seed)
    net = policy.build(OBS, size, generator=generator)
    return net, scale * torch.randn(states, OBS, generator=generator)


def _drawn(policy: Any, case: Case) -> tuple[nn.Module, Tensor]:
    """A network away from where it starts, at which all distributions may be alike."""
    net, obs = _built(policy, case)
    generator = torch.Generator().manual_seed(case[-1])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net, obs


def _told(pi: Any) -> Tensor:
    """What tells distributions apart, whatever kind they are of: mode, the density there, and entropy."""
    mode, here = pi.mode, pi.log_prob(pi.mode.unsqueeze(-2))
    return torch.cat([mode, here, pi.entropy().unsqueeze(-1)], dim=-1)
