"""Stacked fully connected networks: a stack of independent networks evaluated as batched matrix products.

Shape legend: ``G`` networks in the stack (population × signals × members, flattened), ``N`` rows, ``H`` width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvpo import particles

# In place where autograd allows it: a fresh tensor of B·K rows costs more in page faults than its arithmetic.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "silu": F.silu,
    "tanh": torch.tanh_,
    "elu": F.elu,
}


CACHED = 2**19
"""Numbers of one layer, over the whole stack, that are worked on at once on a host, 2 MiB: those of many particles
leave its cache between one layer and the next, and evaluation then waits for memory most of the time."""


class StackedLinear(nn.Module):
    """``y_g = x_g W_g + b_g`` for g = 1..G: inputs [G,N,in] (or [1,N,in], shared by the stack) to [G,N,out].

    Weights are drawn orthogonal, times ``gain``, one network after the other, so that network g of a stack starts
    where a single network would that is built g-th from the same generator. Biases start at zero.
    """

    def __init__(self, stack: int, inputs: int, outputs: int, *, gain: float, generator: torch.Generator | None):
        super().__init__()
        weight = torch.empty(stack, inputs, outputs)
        for layer in weight:
            nn.init.orthogonal_(layer, gain=gain, generator=generator)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(stack, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``y_g = x_g W_g + b_g``; a stack of one, or a matrix without a stack, is a plain product, which costs less than a
    batch of one."""
    if weight.shape[-1] == 1:
        # BLAS packs the rows for a product of one column too, which costs several times what reading them does.
        return torch.linalg.vecdot(x, weight.mT).unsqueeze(-1) + bias
    if weight.ndim == 2:
        return torch.addmm(bias, x, weight)
    if weight.shape[0] == 1:
        return torch.addmm(bias[0], x[0], weight[0]).unsqueeze(0)
    return torch.baddbmm(bias, x.expand(weight.shape[0], -1, -1), weight)


class StackedMLP(nn.Module):
    """``G`` multilayer perceptrons of the same shape: [G,N,in] (or [1,N,in]) to [G,N,out].

    :meth:`particles` evaluates K rows (actions) per state and computes the state half of the first layer once per
    state instead of K times.
    """

    def __init__(
        self,
        stack: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        activation: str = "relu",
        layer_norm: bool = False,
        output_gain: float = 1.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        widths = [inputs, *hidden]
        gain = math.sqrt(2.0) if activation in ("relu", "silu", "elu") else 1.0
        self.layers = nn.ModuleList(
            StackedLinear(stack, a, b, gain=gain, generator=generator)
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.head = StackedLinear(stack, widths[-1], outputs, gain=output_gain, generator=generator)
        self.activation = ACTIVATIONS[activation]
        self.layer_norm = layer_norm
        self.rectified = activation == "relu" and not layer_norm

    def forward(self, x: Tensor) -> Tensor:
        *hidden, (weight, bias) = self._parameters_by_layer()
        alone = len(weight) == 1
        if alone:
            # An activation in place of a view makes autograd copy the gradient.
            x, weight, bias = x.squeeze(0), weight.squeeze(0), bias.view(-1)
            hidden = [(w.squeeze(0), b.view(-1)) for w, b in hidden]
        for w, b in hidden:
            x = self._activate(linear(x, w, b))
        x = linear(x, weight, bias)
        return x.unsqueeze(0) if alone else x

    def particles(
        self, shared: Tensor, rows: Tensor, networks: slice | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """``f([shared, row])`` for K rows per state: ``shared`` [G|1,B,I], ``rows`` [G|1,B,K,J] to [G,B,K,out].

        ``networks`` evaluates these of the stack only, which are then the G. Without gradients, a host takes as many
        states at once as its cache holds, in compiled loops (:mod:`cvpo.particles`) where there are any. ``dtype`` is
        that of the products between hidden layers; inputs, biases, activations and the head, whose sums may be large
        beside their differences, keep theirs.
        """
        parameters = self._parameters_by_layer()
        if networks is not None:
            parameters = [(weight[networks], bias[networks]) for weight, bias in parameters]
        states, count = rows.shape[-3:-1]
        products = dtype or torch.float32
        if count > 1 and self.rectified and particles.fits(shared, rows, parameters, products):
            (weight, bias), *rest = parameters
            split = shared.shape[-1]
            per_state = linear(shared, weight[:, :split], bias)
            return particles.rectified(per_state, rows, weight[:, split:], rest, products)
        if dtype is not None:
            parameters[1:-1] = [(weight.to(dtype), bias) for weight, bias in parameters[1:-1]]
        at_once = max(1, states)
        if rows.device.type == "cpu" and not torch.is_grad_enabled():
            width = max(weight.shape[-1] for weight, _ in parameters)
            at_once = max(1, CACHED // (len(parameters[0][0]) * count * width))
        found = [
            self._through(shared[:, i : i + at_once], rows[:, i : i + at_once], parameters, dtype)
            for i in range(0, max(1, states), at_once)
        ]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def _parameters_by_layer(self) -> list[tuple[Tensor, Tensor]]:
        return [(layer.weight, layer.bias) for layer in (*self.layers, self.head)]

    def _through(
        self, shared: Tensor, rows: Tensor, parameters: list[tuple[Tensor, Tensor]], dtype: torch.dtype | None
    ) -> Tensor:
        x = _first(shared, rows, *parameters[0])
        for weight, bias in parameters[1:]:
            x = self._activate(x)
            if weight.dtype == dtype:
                x = torch.bmm(x.to(dtype), weight).to(x.dtype).add_(bias)
            else:
                x = linear(x, weight, bias)
        return x.unflatten(1, (-1, rows.shape[-2]))

    def _activate(self, x: Tensor) -> Tensor:
        if self.layer_norm:
            x = F.layer_norm(x, x.shape[-1:])
        return self.activation(x)


def _first(shared: Tensor, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The first layer of :meth:`StackedMLP.particles`, [G,B·K,H]: the state half once for all rows of a state."""
    if rows.shape[-2] == 1:
        # Nothing to share: one product, and one gradient, in place of two.
        return linear(torch.cat([shared, rows.squeeze(-2)], dim=-1), weight, bias)
    split, count = shared.shape[-1], rows.shape[-2]
    per_state = linear(shared, weight[:, :split], bias)
    per_row = torch.matmul(rows.flatten(1, 2), weight[:, split:])
    return per_row.unflatten(1, (-1, count)).add_(per_state.unsqueeze(2)).flatten(1, 2)
