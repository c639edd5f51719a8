"""What an agent asks of a policy's network, looked at once when it is built, and of a distribution's values.

Shape legend: ``B`` states, ``D`` action dimensions or discrete actions, ``O`` observation size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cvpo.distributions.gaussian import diagonal
from cvpo.errors import ConfigError, CvpoError, ProblemError

ALLOWED = "cvpo.distributions.Gaussian or Categorical"
OFFERED = ("kind", "mode", "sample", "log_prob", "entropy", "kl", "detach", "to")
PARAMETERS = {"gaussian": ("mean", "scale", "is_diagonal"), "categorical": ("logits",)}


def check_network(net: nn.Module, obs_size: int, action_size: int, *, discrete: bool, population: int = 1) -> None:
    """Raises ConfigError unless ``net`` makes a distribution of actions [...,B,D] out of observations [...,B,O], here
    of 0, with what distributions offer. ``population`` > 1 is a leading axis of both."""
    lead = (population,) if population > 1 else ()
    device = next((p.device for p in net.parameters()), None)
    obs = torch.zeros((*lead, 2, obs_size), dtype=torch.float32, device=device)
    found = _quietly(net, obs)
    what = f"what the policy's network gives is a {type(found).__module__}.{type(found).__qualname__}"
    kind = "categorical" if discrete else "gaussian"
    if getattr(found, "kind", kind) != kind:
        raise ConfigError(f"{what} of the kind {found.kind!r}; allowed for these actions: {kind!r}, as of {ALLOWED}")
    missing = [name for name in (*OFFERED, *PARAMETERS[kind]) if not hasattr(found, name)]
    if missing:
        raise ConfigError(f"{what}, which has no {' and no '.join(missing)}; allowed: {ALLOWED}")
    shape = (*obs.shape[:-1], action_size)
    if found.mode.shape != shape:
        given = f"{list(found.mode.shape)} for observations {list(obs.shape)}"
        raise ConfigError(f"{what} with a mode of shape {given}; allowed: {list(shape)}")
    # Not more of its values: that all are finite need not hold of observations of 0.
    if kind == "gaussian" and bool((diagonal(found.scale, found.mode) <= 0).any()):
        raise ConfigError(f"{what} with deviations of 0 or less; allowed: > 0")


def _quietly(net: nn.Module, obs: Tensor) -> Any:
    """What ``net`` makes of ``obs``, which neither dropout nor running means are to notice."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            return net(obs)
    except CvpoError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a network of somebody's raises
        raise ConfigError(f"the policy's network fails for observations {list(obs.shape)}: {error!r}") from error
    finally:
        for module, training in modes:
            module.training = training


def check_distribution(distribution: Any, what: str) -> None:
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
