"""A ring of preallocated rows, time-major: step ``t`` of environment ``n`` lies at row ``t``, column ``n``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvpo.buffers.memory import Fields, bytes_of, require, stated
from cvpo.errors import CheckpointError, ConfigError

STORAGE = ("device", "pinned")


class Ring:
    """Tensors ``data`` [T,N,...] by name, the oldest step overwritten first.

    Fields of one type lie side by side in memory, one transition after the other, so that :meth:`rows_at` reads a
    transition in one piece; ``data`` are views of that. Transition ``row·N + column`` has that ``index``.

    ``capacity`` counts transitions and is divided among ``num_envs`` columns. ``nbytes`` is what they take. Unwritten
    floating-point rows are NaN, so that a read of them is loud. They lie on ``device``, or, with ``storage="pinned"``,
    in host memory that is page-locked where ``device`` is an accelerator; what is read of them is on ``device`` either
    way. Raises ConfigError, with the bytes that are needed and available, where they do not fit.
    """

    def __init__(
        self, capacity: int, num_envs: int, fields: Fields, device: torch.device, storage: str = STORAGE[0]
    ) -> None:
        self.rows = capacity // num_envs
        if self.rows < 1:
            raise ConfigError(f"capacity is {capacity}; allowed: at least one transition for each of {num_envs} envs")
        self.num_envs = num_envs
        self.device = device
        self.head = 0
        self.filled = 0
        transitions, each = self.rows * num_envs, bytes_of(fields)
        self.nbytes = transitions * each
        home = torch.device("cpu") if storage == "pinned" else device
        self._pinned = home != device
        require(transitions, each, home)
        # Where each field lies: its type, and its columns among those of that type.
        self._columns: dict[str, tuple[torch.dtype, slice, tuple[int, ...]]] = {}
        widths: dict[torch.dtype, int] = {}
        for name, (shape, dtype) in fields.items():
            start = widths.get(dtype, 0)
            widths[dtype] = start + torch.Size(shape).numel()
            self._columns[name] = dtype, slice(start, widths[dtype]), tuple(shape)
        try:
            self._packs = {
                dtype: torch.full(
                    (transitions, width), _blank(dtype), dtype=dtype, device=home, pin_memory=self._pinned
                )
                for dtype, width in widths.items()
            }
        except RuntimeError as error:
            raise ConfigError(
                f"{stated(transitions, each, home)}, which cannot be allocated; choose a smaller capacity"
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
            tensor[at.to(tensor.device)] = values[name][steps - kept :].to(tensor.device, tensor.dtype)
        self.head = (self.head + steps) % self.rows
        self.filled = min(self.filled + steps, self.rows)
        return at

    def rows_at(self, index: Tensor, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Every field [*index.shape,...] of the transitions ``index``, or those of one ``dtype`` only."""
        flat = index.flatten()
        read = {
            kind: self._read(pack, flat).view(*index.shape, -1)
            for kind, pack in self._packs.items()
            if dtype in (None, kind)
        }
        return {name: self._field(name, read[kind]) for name, (kind, _, _) in self._columns.items() if kind in read}

    def _read(self, pack: Tensor, index: Tensor) -> Tensor:
        if not self._pinned:
            return pack.index_select(0, index)
        # Page-locked memory on the way out too: the copy then runs beside the host.
        way = torch.empty((len(index), pack.shape[1]), dtype=pack.dtype, pin_memory=True)
        torch.index_select(pack, 0, index.cpu(), out=way)
        return way.to(self.device, non_blocking=True)

    def _field(self, name: str, packed: Tensor) -> Tensor:
        """The columns of one field, [...,W] to [...,*shape]."""
        _, columns, shape = self._columns[name]
        if not shape:
            return packed[..., columns.start]
        part = packed[..., columns]
        return part if len(shape) == 1 else part.unflatten(-1, shape)

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """``index`` [size] of transitions, uniform over all that are written, with replacement."""
        return torch.randint(self.filled * self.num_envs, (size,), generator=generator, device=self.device)

    @property
    def newest(self) -> int:
        """The row written last."""
        return (self.head - 1) % self.rows

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
