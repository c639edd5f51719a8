"""A ring of preallocated rows, time-major: step ``t`` of environment ``n`` lies at row ``t``, column ``n``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvpo.buffers.memory import Fields, bytes_of, require, stated
from cvpo.errors import CheckpointError, ConfigError


class Ring:
    """Tensors ``data`` [T,N,...] by name, the oldest step overwritten first.

    Fields of one type lie side by side in memory, one transition after the other, so that :meth:`rows_at` reads a
    transition in one piece; ``data`` are views of that. Transition ``row·N + column`` has that ``index``.

    ``capacity`` counts transitions and is divided among ``num_envs`` columns. ``nbytes`` is what they take. Unwritten
    floating-point rows are NaN, so that a read of them is loud. Raises ConfigError, with the bytes that are needed and
    available, where they do not fit.
    """

    def __init__(self, capacity: int, num_envs: int, fields: Fields, device: torch.device):
        self.rows = capacity // num_envs
        if self.rows < 1:
            raise ConfigError(f"capacity is {capacity}; allowed: at least one transition for each of {num_envs} envs")
        self.num_envs = num_envs
        self.device = device
        self.head = 0
        self.filled = 0
        transitions, each = self.rows * num_envs, bytes_of(fields)
        self.nbytes = transitions * each
        require(transitions, each, device)
        # Where each field lies: its type, and its columns among those of that type.
        self._columns: dict[str, tuple[torch.dtype, slice, tuple[int, ...]]] = {}
        widths: dict[torch.dtype, int] = {}
        for name, (shape, dtype) in fields.items():
            start = widths.get(dtype, 0)
            widths[dtype] = start + torch.Size(shape).numel()
            self._columns[name] = dtype, slice(start, widths[dtype]), tuple(shape)
        try:
            self._packs = {
                dtype: torch.full((transitions, width), _blank(dtype), dtype=dtype, device=device)
                for dtype, width in widths.items()
            }
        except RuntimeError as error:
            raise ConfigError(
                f"{stated(transitions, each, device)}, which cannot be allocated; choose a smaller capacity"
            ) from error
        self.data = {
            name: self._field(name, self._packs[dtype].view(self.rows, num_envs, -1))
            for name, (dtype, _, _) in self._columns.items()
        }

    def __len__(self) -> int:
        return self.filled * self.num_envs

    def add(self, **values: Tensor) -> None:
        """Write one row [N,...] of every field."""
        for name, tensor in self.data.items():
            tensor[self.head].copy_(values[name])
        self.head = (self.head + 1) % self.rows
        self.filled = min(self.filled + 1, self.rows)

    def extend(self, **values: Tensor) -> Tensor:
        """Write many rows [T,N,...] of every field in order, at once; the numbers of the rows that are kept."""
        steps = len(next(iter(values.values())))
        kept = min(steps, self.rows)
        at = (self.head + torch.arange(steps - kept, steps, device=self.device)) % self.rows
        for name, tensor in self.data.items():
            tensor[at] = values[name][steps - kept :].to(self.device, tensor.dtype)
        self.head = (self.head + steps) % self.rows
        self.filled = min(self.filled + steps, self.rows)
        return at

    def rows_at(self, index: Tensor) -> dict[str, Tensor]:
        """Every field [B,...] of the transitions ``index`` [B]."""
        read = {dtype: pack.index_select(0, index) for dtype, pack in self._packs.items()}
        return {name: self._field(name, read[dtype]) for name, (dtype, _, _) in self._columns.items()}

    def _field(self, name: str, packed: Tensor) -> Tensor:
        """The columns of one field, [...,W] to [...,*shape]."""
        _, columns, shape = self._columns[name]
        if not shape:
            return packed[..., columns.start]
        part = packed[..., columns]
        return part if len(shape) == 1 else part.unflatten(-1, shape)

    def ages(self, size: int, generator: torch.Generator, newest: int | None = None) -> tuple[Tensor, Tensor]:
        """Uniform draws: age [size] (0 is the newest row) and environment [size], among the ``newest`` rows."""
        rows = self.filled if newest is None else min(self.filled, newest)
        draw = torch.randint(rows * self.num_envs, (size,), generator=generator, device=self.device)
        return draw // self.num_envs, draw % self.num_envs

    def row(self, age: Tensor) -> Tensor:
        """Row numbers of ages."""
        return (self.head - 1 - age) % self.rows

    def age(self, row: Tensor) -> Tensor:
        """Ages of row numbers."""
        return (self.head - 1 - row) % self.rows

    def state_dict(self) -> dict[str, Any]:
        """The written rows only, and the write position."""
        return {
            "head": self.head,
            "filled": self.filled,
            "data": {name: tensor[: self.filled].clone() for name, tensor in self.data.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises CheckpointError where the saved rows do not fit."""
        for name, tensor in self.data.items():
            saved = state["data"].get(name)
            if saved is None or saved.shape[1:] != tensor.shape[1:] or saved.shape[0] > self.rows:
                found = "nothing" if saved is None else tuple(saved.shape)
                raise CheckpointError(f"buffer field {name!r}: found {found}; allowed: at most {tuple(tensor.shape)}")
        self.head, self.filled = int(state["head"]), int(state["filled"])
        for name, tensor in self.data.items():
            tensor[: self.filled].copy_(state["data"][name])


def _blank(dtype: torch.dtype) -> float:
    return torch.nan if dtype.is_floating_point else 0
