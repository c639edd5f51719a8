"""What an agent asks of a policy's network, looked at once when it is built.

Shape legend: ``B`` states, ``D`` action dimensions or discrete actions, ``O`` observation size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cvpo.distributions.gaussian import diagonal
from cvpo.errors import ConfigError, ProblemError

ALLOWED = "cvpo.distributions.Gaussian or Categorical"


def check_network(net: nn.Module, obs_size: int, action_size: int, *, discrete: bool, population: int = 1) -> None:
    """Raises ConfigError unless ``net`` makes a distribution of actions [...,B,D] out of observations [...,B,O], and
    ProblemError where that is of values that are none. ``population`` > 1 is a leading axis of both."""
    lead = (population,) if population > 1 else ()
    device = next((p.device for p in net.parameters()), None)
    obs = torch.zeros((*lead, 2, obs_size), dtype=torch.float32, device=device)
    training = net.training
    # Neither dropout nor running means are to notice.
    net.eval()
    try:
        with torch.no_grad():
            found = net(obs)
    finally:
        net.train(training)
    what = f"what the policy's network gives is a {type(found).__module__}.{type(found).__qualname__}"
    kind = "categorical" if discrete else "gaussian"
    if getattr(found, "kind", kind) != kind:
        raise ConfigError(f"{what} of the kind {found.kind!r}; allowed for these actions: {kind!r}, as of {ALLOWED}")
    parameters = ("logits",) if discrete else ("mean", "scale")
    needed = ("kind", "mode", "sample", "log_prob", "entropy", *parameters)
    missing = [name for name in needed if not hasattr(found, name)]
    if missing:
        raise ConfigError(f"{what}, which has no {' and no '.join(missing)}; allowed: {ALLOWED}")
    shape = (*obs.shape[:-1], action_size)
    if found.mode.shape != shape:
        given = f"{list(found.mode.shape)} for observations {list(obs.shape)}"
        raise ConfigError(f"{what} with a mode of shape {given}; allowed: {list(shape)}")
    check_values(found, "the policy")


def check_values(distribution: Any, what: str) -> None:
    """Raises ProblemError for a distribution with values that are not finite, or a scale that is none."""
    mode = distribution.mode
    # A mode of categories is one-hot whatever the logits are.
    values: Tensor = mode if distribution.kind == "gaussian" else torch.logsumexp(distribution.logits, -1)
    if not bool(torch.isfinite(values).all()):
        raise ProblemError(f"{what} is not finite; allowed: finite parameters")
    if distribution.kind != "gaussian":
        return
    scale = distribution.scale
    deviations = diagonal(scale, mode)
    if not bool((torch.isfinite(deviations) & (deviations > 0)).all()):
        raise ProblemError(f"{what} has deviations of 0 or less, or not finite; allowed: > 0")
    if scale.ndim > mode.ndim and not bool((torch.isfinite(scale) & (scale == scale.tril())).all()):
        raise ProblemError(f"{what} has no Cholesky factor; allowed: finite, with 0 above the diagonal")
