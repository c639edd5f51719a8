"""A Gaussian policy's gradients without autograd, whose record of each operation costs more than the operations of
networks as small as a policy's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from cvpo.distributions import Gaussian
from cvpo.handover import require_members
from cvpo.networks import StackedLinear, StackedMLP, linear
from cvpo.policy import GaussianNet


def by_hand(policy: nn.Module) -> GaussianByHand | None:
    """Of the library's diagonal Gaussians on a host, rectified, in float32; None of others, and where what happens to
    modules or parameters on the way is watched, changed or not wanted."""
    if torch.is_autocast_enabled("cpu") or not _is(policy, GaussianNet):
        return None
    assert isinstance(policy, GaussianNet)
    mlp = policy.mlp
    if not policy.state_dependent or policy.below or not _is(mlp, StackedMLP) or not mlp.rectified:
        return None
    layers = (*mlp.layers, mlp.head)
    if not (_is(mlp.layers, nn.ModuleList) and all(_is(layer, StackedLinear) for layer in layers)):
        return None
    parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    return GaussianByHand(policy) if all(map(_plain, parameters)) else None


class GaussianByHand:
    """``π(a|s) = N(μ(s), σ(s)²)`` of a :class:`~cvpo.policy.GaussianNet`, and the gradients of its parameters::

        ∂/∂m = (1 − μ²) ∂/∂μ        ∂/∂r = σ log(σ_max/σ_min) s (1 − s) ∂/∂σ

    with μ = tanh(m), or m, and s the sigmoid of r, as in :class:`~cvpo.policy.GaussianPolicy`.
    """

    def __init__(self, net: GaussianNet) -> None:
        self._net, self._mlp = net, PerceptronByHand(net.mlp)

    @torch.no_grad()
    def __call__(self, obs: Tensor) -> Gaussian:
        """The network's distribution at ``obs`` [...,B,O], with what :meth:`backward` needs kept."""
        net, shape = self._net, (*obs.shape[:-1], self._net.action_size)
        require_members(obs, net.population)
        out = self._mlp(obs.reshape(net.population, -1, obs.shape[-1])).numpy()
        raw_mean, raw_scale = out[..., : shape[-1]], out[..., shape[-1] :]
        # Few numbers: NumPy takes less time to call than torch. It would warn where r is far from 0, and of NaN.
        with np.errstate(all="ignore"):
            mean = np.tanh(raw_mean) if net.tanh else np.ascontiguousarray(raw_mean)
            share = 1.0 / (1.0 + np.exp(-net.offset - raw_scale))
            scale = np.exp(net.log_low + net.log_range * share)
        self._at = mean, share, scale
        return Gaussian(torch.from_numpy(mean).reshape(shape), torch.from_numpy(scale).reshape(shape))

    @torch.no_grad()
    def backward(self, by_mean: Tensor, by_scale: Tensor) -> None:
        """Give the parameters their gradients, from those by μ and σ [...,B,D] of the last call."""
        mean, share, scale = self._at
        size = mean.shape[-1]
        slope = np.empty((*mean.shape[:-1], 2 * size), np.float32)
        to_mean, to_scale = (by.numpy().reshape(mean.shape) for by in (by_mean, by_scale))
        with np.errstate(all="ignore"):
            slope[..., :size] = to_mean * (1.0 - mean * mean) if self._net.tanh else to_mean
            np.multiply(to_scale * scale, self._net.log_range * (share - share * share), out=slope[..., size:])
        self._mlp.backward(torch.from_numpy(slope))


class PerceptronByHand:
    """A rectified :class:`~cvpo.networks.StackedMLP`, and the gradients of its parameters::

        h_0 = x        h_l = max(0, h_{l−1} W_l + b_l)        y = h_L W_{L+1} + b_{L+1}
        ∂/∂W_l = h_{l−1}ᵀ δ_l        ∂/∂b_l = Σ_n δ_l        δ_{l−1} = δ_l W_lᵀ where h_{l−1} > 0        δ_{L+1} = ∂/∂y

    Without gradients itself; it keeps the h of the last call.
    """

    def __init__(self, mlp: StackedMLP) -> None:
        self._parameters = [(layer.weight, layer.bias) for layer in (*mlp.layers, mlp.head)]
        self._alone = len(mlp.head.weight) == 1
        # Steps change parameters in place, and so what is seen here.
        self._layers = [(weight.detach(), bias.detach()) for weight, bias in self._parameters]
        if self._alone:
            self._layers = [(weight[0], bias[0, 0]) for weight, bias in self._layers]
        self._inputs: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        """y [G,N,out] of ``x`` [G,N,in]."""
        x = x[0] if self._alone else x
        self._inputs = [x]
        for weight, bias in self._layers[:-1]:
            x = torch.relu_(linear(x, weight, bias))
            self._inputs.append(x)
        y = linear(x, *self._layers[-1])
        return y.unsqueeze(0) if self._alone else y

    def backward(self, slope: Tensor) -> None:
        """Give the parameters their gradients from ``slope`` = ∂/∂y [G,N,out], once for each call."""
        slope = slope[0] if self._alone else slope
        for i in reversed(range(len(self._layers))):
            (weight, bias), x = self._parameters[i], self._inputs[i]
            weight.grad = torch.matmul(x.mT, slope).view_as(weight)
            bias.grad = slope.sum(-2).view_as(bias)
            if i:
                slope = torch.matmul(slope, self._layers[i][0].mT).mul_(x.sign_())


def _is(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a ``module`` is of this very ``kind``, without hooks or a ``forward`` of its own."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return type(module) is kind and not hooks and "forward" not in vars(module)


def _plain(parameter: Tensor) -> bool:
    """Whether a ``parameter`` is to have a gradient, and nothing else happens with it."""
    if type(parameter) is not nn.Parameter or parameter.dtype != torch.float32 or not parameter.is_cpu:
        return False
    watched = parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None)
    return parameter.requires_grad and not watched
