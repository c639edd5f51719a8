"""The fitting driver: optimiser steps on a loss, then the guard. Strategies differ in the loss alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from cvpo.errors import CheckpointError, ConfigError
from cvpo.mstep.guard import guard, spread
from cvpo.mstep.protocol import Projection


@attrs.define(eq=False)
class FitState:
    """What a fit keeps between updates: the ``optimizer`` and ``alpha`` [*population, terms], in [0, maximum].

    ``params`` are those of the policy that is fitted.
    """

    params: tuple[Tensor, ...]
    optimizer: torch.optim.Optimizer
    alpha: Tensor
    bounds: Tensor
    terms: tuple[str, ...]
    average: str

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; :meth:`load_state_dict` gives back the same next update, bit for bit."""
        return {"optimizer": self.optimizer.state_dict(), "alpha": self.alpha}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises CheckpointError where ``state`` is of another policy or projection."""
        if set(state) != {"optimizer", "alpha"} or state["alpha"].shape != self.alpha.shape:
            raise CheckpointError(
                f"M-step state does not fit: expected 'optimizer' and 'alpha' {tuple(self.alpha.shape)}"
            )
        try:
            # It keeps the tensors that it is given, and changes them in place.
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        except ValueError as error:
            raise CheckpointError(f"M-step optimiser state does not fit: {error}") from error
        self.alpha.copy_(state["alpha"])

    def forget_nonfinite(self) -> None:
        """Zero what is not finite in the optimiser's moments: in one such update they would keep it for good."""
        for kept in self.optimizer.state.values():
            for value in kept.values():
                if isinstance(value, Tensor):
                    value.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    def ratios(self, kls: Tensor) -> Tensor:
        """KL/ε of each term [*population, terms]: of the mean over states, or of the largest for ``"state"``;
        ``kls`` [*population, terms, B]."""
        kls = kls.detach()
        return (kls.mean(-1) if self.average == "batch" else kls.amax(-1)) / self.bounds


def build_state(policy: nn.Module, projection: Projection, population: Sequence[int], lr: float) -> FitState:
    """A fresh state: Adam over the parameters of ``policy``, multipliers 0.

    Raises ConfigError for bounds that bound nothing: the guard would let every step pass, or none.
    """
    params = tuple(policy.parameters())
    bounds = projection.bounds
    if not bounds or not all(0.0 < bound < math.inf for bound in bounds.values()):
        allowed = "the name and the bound of each KL term, positive and finite"
        raise ConfigError(f"{type(projection).__name__}.bounds is {bounds!r}; allowed: {allowed}")
    dtype, device = params[0].dtype, params[0].device
    return FitState(
        params=params,
        optimizer=torch.optim.Adam(params, lr=lr, fused=True),
        alpha=torch.zeros((*population, len(bounds)), dtype=dtype, device=device),
        bounds=torch.tensor(list(bounds.values()), dtype=dtype, device=device),
        terms=tuple(bounds),
        average=getattr(projection, "average", "batch"),
    )


def descend(state: FitState, backward: Callable[[], Any], max_grad_norm: float | None) -> None:
    """One optimiser step along the gradients that ``backward()`` leaves at the parameters."""
    for p in state.params:
        p.grad = None
    backward()
    if max_grad_norm is not None:
        clip_gradients(state.params, max_grad_norm, state.alpha.ndim - 1)
    state.optimizer.step()


def clip_gradients(params: Iterable[Tensor], max_norm: float, lead: int) -> None:
    """Scale gradients in place to a global norm of at most ``max_norm``, by member of ``lead`` population axes."""
    grads = [p.grad for p in params if p.grad is not None]
    square = torch.stack([grad.flatten(lead).square().sum(-1) for grad in grads]).sum(0)
    scale = (max_norm / (square.sqrt() + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(spread(scale, grad))


def finish(
    state: FitState,
    kls: Callable[[], Tensor],
    old_params: Sequence[Tensor],
    losses: Sequence[Tensor],
    fitted: Tensor | None = None,
) -> dict[str, Tensor]:
    """Run the guard and report ``loss``, ``guard_t`` and ``kl/<term>``, KL/ε, each [*population].

    ``losses`` are those before each step: the last is reported, or, where one is not finite, what they add up to, and
    the policy is π_old then. ``kls()`` measures the policy as it is [*population, terms, B]; ``fitted`` is its KL/ε
    where that is known already.
    """

    def measure() -> Tensor:
        return state.ratios(kls())

    with torch.no_grad():
        before = measure() if fitted is None else fitted
        early = before.device.type == "cpu"
        # A step on a loss that is not finite may look like any other.
        total = sum(losses[1:], losses[0])
        sound = total.isfinite()
        t, ratios = guard(measure, state.params, tuple(old_params), before, early, sound)
        if ratios is not before:
            # The guard had something to do, which may have been a step that is not finite.
            state.forget_nonfinite()
    stats = {"loss": torch.where(sound, losses[-1], total), "guard_t": t}
    return stats | {f"kl/{term}": ratios[..., j] for j, term in enumerate(state.terms)}
