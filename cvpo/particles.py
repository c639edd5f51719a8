"""Many actions for each state through a stack of networks, on a host: torch has the products, compiled loops the rest.

In torch's own operations, memory that does not fit the nearest cache is gone over many times a layer, for biases,
activations and conversions. Loops go over it once before a product and once after. Numba is an extra; without it, and
with gradients, it is :meth:`cvpo.networks.StackedMLP.particles` in torch, with the same numbers but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cvpo.compiled import loops, readable, shareable

Parameters = Sequence[tuple[Tensor, Tensor]]
"""Weights [G,in,out] and biases [G,1,out] of one layer after the other."""

DTYPES = (torch.float32, torch.bfloat16)
"""Of products."""
AT_ONCE = 2**22
"""Bytes of the activations of one layer, in one network, that are worked on at once."""
ALONE = 4
"""Most threads with which loops are used where they cannot be shared: theirs is one, and torch's others would wait. A
guess: seen to be faster with one and two."""


def _loops() -> Any:
    return loops("cvpo.particle_loops")


def fits(shared: Tensor, rows: Tensor, parameters: Parameters, dtype: torch.dtype) -> bool:
    """Whether loops go over these: two hidden layers at least, no gradients, and shapes that fit each other."""
    if torch.is_grad_enabled() or len(parameters) < 3 or dtype not in DTYPES:
        return False
    if _loops() is None or torch.is_autocast_enabled("cpu"):
        return False
    given = shared, rows, *(part.detach() for layer in parameters for part in layer)
    if not readable(*given) or any(part.dtype != torch.float32 for part in given):
        return False
    (stack, inputs, _), (*_, states, _, own) = parameters[0][0].shape, rows.shape
    alike = shared.shape[1:] == (states, inputs - own) and own > 0
    if not alike or any(len(part) not in (1, stack) for part in (shared, rows)):
        return False
    return torch.get_num_threads() <= ALONE or shareable()


def states_at_once(count: int, width: int, dtype: torch.dtype) -> int:
    """How many states are worked on at once, of ``count`` actions each, in layers of ``width``."""
    return max(1, AT_ONCE // (count * width * dtype.itemsize))


def rectified(per_state: Tensor, rows: Tensor, weight: Tensor, parameters: Parameters, dtype: torch.dtype) -> Tensor:
    """``f(max(0, per_state_b + row_bk W))`` [G,B,K,O], with the layers f after the first, rectified between them.

    ``per_state`` [G,B,H]: the states' part of the first layer; ``rows`` [G|1,B,K,J] and ``weight`` W [G,J,H]: that of
    the actions; ``parameters``: the layers after it. Products between hidden layers are in ``dtype``.
    """
    states, count, inputs = rows.shape[-3:]
    if inputs % 2:
        # Loops take two inputs at a time.
        rows, weight = F.pad(rows, (0, 1)), F.pad(weight, (0, 0, 0, 1))
    shared, own, weights = (part.detach().contiguous().numpy() for part in (per_state, rows, weight))
    products = [matrix.detach().to(dtype) for matrix, _ in parameters[:-1]]
    biases = [bias.detach().numpy()[:, 0] for _, bias in parameters]
    # With the numbers of one output after each other.
    head = parameters[-1][0].detach().mT.contiguous().numpy()
    found = np.empty((len(head), states * count, head.shape[1]), np.float32)
    widths = [weight.shape[-1], *(len(bias[0]) for bias in biases[:-1])]
    at_once = min(states, states_at_once(count, max(widths), dtype))
    memory = torch.empty(2, at_once * count * max(widths), dtype=dtype, device=rows.device)
    with _loops().by(torch.get_num_threads()) as (first, between, last):
        for i in range(0, states, at_once or 1):
            some = slice(i, min(i + at_once, states))
            n = (some.stop - i) * count
            before = [_as_rows(memory[0], n, width) for width in widths[:-1]]
            after = [_as_rows(memory[1], n, width) for width in widths[1:]]
            for g in range(len(head)):
                first(shared[g, some], own[g % len(own), some], weights[g], before[0][1])
                for layer, matrix in enumerate(products):
                    if layer:
                        between(after[layer - 1][1], biases[layer - 1][g], before[layer][1])
                    torch.mm(before[layer][0], matrix[g], out=after[layer][0])
                last(after[-1][1], biases[-2][g], head[g], biases[-1][g], found[g, i * count : i * count + n])
    return torch.from_numpy(found).unflatten(1, (states, count))


def _as_rows(memory: Tensor, n: int, width: int) -> tuple[Tensor, np.ndarray]:
    """The beginning of ``memory`` as ``n`` rows, for torch and for loops, which read bfloat16 as int16."""
    rows = memory[: n * width].view(n, width)
    return rows, (rows if rows.dtype == torch.float32 else rows.view(torch.int16)).numpy()
