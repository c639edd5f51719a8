"""Networks that follow others: target critics, the old policy of the trust region, the policy that is handed over."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cvpo.config import AgentConfig


class Averages:
    """``θ̄ <- θ̄ + τ (θ − θ̄)`` after every update: copies of ``policy`` and ``critic`` at rates of ``config``.

    ``target_critic`` at ``target_tau``; ``old_policy`` at ``old_tau``, or 1 every ``old_period`` updates; and
    ``mean_policy``, at 1/max(1, σ n) in the n-th update that fits a policy, for ``policy_average`` σ: its weights reach
    back over about that share of them. It is None without. Source: Polyak & Juditsky (1992); O. Shamir and T. Zhang
    (2013), arXiv 1212.1824, for averages over the last share.
    """

    def __init__(self, config: AgentConfig, policy: nn.Module, critic: nn.Module) -> None:
        self.config = config
        self.target_critic, self.old_policy = _follower(critic), _follower(policy)
        self.mean_policy = _follower(policy) if config.policy_average else None
        # Walking the modules for their parameters takes longer than averaging them.
        self._policy, self.critic_parameters = tuple(policy.parameters()), tuple(critic.parameters())
        self._target, self.old_parameters = tuple(self.target_critic.parameters()), tuple(self.old_policy.parameters())
        self._mean = () if self.mean_policy is None else tuple(self.mean_policy.parameters())

    def step(self, updates: int) -> None:
        """After the update number ``updates``, counted from 1."""
        config = self.config
        _approach(self._target, self.critic_parameters, config.target_tau)
        if config.old_policy == "polyak":
            _approach(self.old_parameters, self._policy, config.old_tau)
        elif updates % config.old_period == 0:
            _approach(self.old_parameters, self._policy, 1.0)
        if self._mean:
            fitted = updates - config.critic_warmup
            _approach(self._mean, self._policy, 1.0 / max(1.0, config.policy_average * fitted))


def _follower(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).requires_grad_(False)


@torch.no_grad()
def _approach(target: tuple[Tensor, ...], source: tuple[Tensor, ...], rate: float) -> None:
    """All tensors in one call."""
    torch._foreach_lerp_(target, source, rate)
