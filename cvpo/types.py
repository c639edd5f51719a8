"""Records that several families share. Shape legend: ``B`` states, ``D`` action dimensions, ``O`` observation size,
``N`` parallel environments, ``M`` costs, ``S = 1 + M`` signals (reward first)."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from cvpo.errors import EnvError


@attrs.frozen
class Spec:
    """What a buffer stores: observation and action sizes, number of signals, and the discount γ of one step."""

    obs_size: int
    action_size: int
    signals: int
    gamma: float


@attrs.frozen
class Transition:
    """One step of ``N`` environments: what :meth:`cvpo.CVPO.observe` and ``store.add`` take.

    ``obs``, ``next_obs`` [N,O]; ``action`` [N,D], the policy's own; ``signals`` [S,N]; ``terminated``, ``truncated``
    [N] bool. ``next_obs`` is the observation that ended the step, never that of a reset. ``log_prob`` [N] is log μ(a|o)
    of the policy that acted, where somebody wants it (:class:`~cvpo.critics.returns.Retrace`).
    """

    obs: Tensor
    action: Tensor
    signals: Tensor
    next_obs: Tensor
    terminated: Tensor
    truncated: Tensor
    log_prob: Tensor | None = None

    def check(self, spec: Spec, num_envs: int) -> None:
        """Raises EnvError for a shape that is not that of ``num_envs`` steps: nothing is broadcast, so that a signal
        that is missing is never taken from another."""
        shapes = {
            "obs": (num_envs, spec.obs_size),
            "action": (num_envs, spec.action_size),
            "signals": (spec.signals, num_envs),
            "next_obs": (num_envs, spec.obs_size),
            "terminated": (num_envs,),
            "truncated": (num_envs,),
            "log_prob": (num_envs,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None and name == "log_prob":
                continue
            if not isinstance(value, Tensor) or tuple(value.shape) != shape:
                found = f"shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
                raise EnvError(f"transition.{name} is {found}; allowed: a tensor of shape {list(shape)}")
            if value.requires_grad:
                raise EnvError(f"transition.{name} requires gradients; allowed: values, as of .detach()")
        for name in ("terminated", "truncated"):
            if getattr(self, name).dtype != torch.bool:
                raise EnvError(f"transition.{name} is {getattr(self, name).dtype}; allowed: torch.bool")

    def to(self, device: torch.device) -> Transition:
        """The same step with its tensors on ``device``."""
        named = attrs.asdict(self, recurse=False)
        parts = {name: value.to(device) for name, value in named.items() if value is not None}
        return Transition(**parts)


@attrs.frozen
class Window:
    """The n steps that a replayed transition begins: ``obs``, ``next_obs`` [B,n,O]; ``action`` [B,n,D]; ``signals``
    [S,B,n]; ``terminated`` [B,n]; ``log_prob`` [B,n] of the policy that acted, NaN where unknown. ``inside`` [B,n] bool
    says which steps count: those after the end of the episode, or after the newest step, do not."""

    obs: Tensor
    action: Tensor
    signals: Tensor
    next_obs: Tensor
    terminated: Tensor
    log_prob: Tensor
    inside: Tensor


@attrs.frozen
class Batch:
    """Replayed transitions: ``signals`` [S,B] summed over the n steps with γ, ``discount`` [B] = γ to the power n,
    ``terminated`` [B] bool (not folded into ``discount``), ``weight`` [B] importance weights, ``index`` [B]; ``window``
    where the buffer gives the single steps too."""

    obs: Tensor
    action: Tensor
    signals: Tensor
    next_obs: Tensor
    terminated: Tensor
    discount: Tensor
    weight: Tensor
    index: Tensor
    window: Window | None = None
