"""Random numbers for the actions of one policy, or of several, each with a generator of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One generator for all, or P of them: the p-th for all that has index p of the leading axis P."""


def draw(kind: Callable[..., Tensor], shape: tuple[int, ...], generator: Generators, like: Tensor) -> Tensor:
    """Numbers of ``kind``, ``torch.randn`` or ``torch.rand``, in ``shape``, with the dtype and device of ``like``.

    From P generators member p of the leading axis gets what it would get alone.
    """
    if isinstance(generator, (tuple, list)):
        parts = [kind(shape[1:], generator=each, dtype=like.dtype, device=like.device) for each in generator]
        return torch.stack(parts)
    return kind(shape, generator=generator, dtype=like.dtype, device=like.device)
