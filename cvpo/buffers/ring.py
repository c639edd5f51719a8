"""A ring of preallocated rows, time-major: step ``t`` of environment ``n`` lies at row ``t``, column ``n``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cvpo.buffers.memory import allocate
from cvpo.errors import CheckpointError, ConfigError

Fields = dict[str, tuple[()] | tuple[int]]
"""Shapes of what is stored of a transition, by name: numbers and vectors."""

STORAGE = ("device", "pinned")


class Ring:
    """Tensors ``data`` [T,N,...] by name, float32, the oldest step overwritten first.

    All fields lie side by side in memory, one transition after the other, so that :meth:`read` gets a transition in one
    piece; ``data`` are views of that. Transition ``row·N + column`` has that ``index``. Flags are 0 or 1.

    ``capacity`` counts transitions and is divided among ``num_envs`` columns. ``nbytes`` is what they take. Unwritten
    rows are NaN, so that a read of them is loud. They lie on ``device``, or, with ``storage="pinned"``, in host memory
    that is page-locked where ``device`` is an accelerator; what is read of them is on ``device`` either way. Raises
    ConfigError, with the bytes that are needed and available, where they do not fit.
    """

    def __init__(
        self, capacity: int, num_envs: int, fields: Fields, device: torch.device, storage: str = STORAGE[0]
    ) -> None:
        self.rows = capacity // num_envs
        if self.rows < 1:
            raise ConfigError(f"capacity is {capacity}; allowed: at least one transition for each of {num_envs} envs")
        self.num_envs = num_envs
        self.device = device = torch.device(device)
        self.head = 0
        self.filled = 0
        self._scalars = [name for name, shape in fields.items() if not shape]
        self._widths = {name: math.prod(shape) for name, shape in fields.items()}
        ends = itertools.accumulate(self._widths.values())
        self._start = {name: end - self._widths[name] for name, end in zip(fields, ends, strict=True)}
        width = sum(self._widths.values())
        #: Where the rows lie.
        self.home = home = torch.device("cpu") if storage == "pinned" else device
        self._pinned = home != device
        self._store = allocate(self.rows * num_envs, width, home, pinned=self._pinned)
        self.nbytes = self._store.nbytes
        self._view()
        self._shapes = {name: (num_envs, *shape) for name, shape in fields.items()}

    def _view(self) -> None:
        self._rows = self._store.view(self.rows, self.num_envs, -1)
        self._columns: dict[tuple[str, ...], Tensor] = {}
        self.data = self.fields(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        # A pickle would make tensors of their own of the views.
        return {name: value for name, value in vars(self).items() if name not in ("_rows", "_columns", "data")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._view()

    def __len__(self) -> int:
        return self.filled * self.num_envs

    def add(self, **values: Tensor) -> None:
        """Write one row [N,...] of every field. Raises ConfigError for other shapes: nothing is broadcast."""
        for name, shape in self._shapes.items():
            self._check(name, values[name], shape)
        # Of numbers of one type that lie as they are written: for anything else torch joins them in twice the time.
        row = [values[name].float().contiguous().view(self.num_envs, width) for name, width in self._widths.items()]
        if self._pinned:
            row = [part.to(self.home) for part in row]
        torch.cat(row, dim=-1, out=self._rows[self.head])
        self.head = (self.head + 1) % self.rows
        self.filled = min(self.filled + 1, self.rows)

    def extend(self, **values: Tensor) -> Tensor:
        """Write many rows [T,N,...] of every field in order, at once; the numbers of the rows that are kept. Raises
        ConfigError for other shapes: nothing is broadcast."""
        steps = len(next(iter(values.values())))
        for name, shape in self._shapes.items():
            self._check(name, values[name], (steps, *shape))
        kept = min(steps, self.rows)
        at = (self.head + torch.arange(steps - kept, steps, device=self.device)) % self.rows
        for name, tensor in self.data.items():
            tensor[at.to(tensor.device)] = values[name][steps - kept :].to(tensor.device, tensor.dtype)
        self.head = (self.head + steps) % self.rows
        self.filled = min(self.filled + steps, self.rows)
        return at

    def check_draw(self, size: int) -> None:
        """Raises ConfigError where nothing is written yet, or nothing is asked for."""
        if size < 1:
            raise ConfigError(f"size of the sample is {size}; allowed: an integer >= 1")
        if not self.filled:
            raise ConfigError("the buffer is empty; allowed: a sample after at least one step was added")

    @staticmethod
    def _check(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
        if value.shape != shape:
            raise ConfigError(f"{name} to be stored has shape {list(value.shape)}; allowed: {list(shape)}")

    def read(self, index: Tensor) -> Tensor:
        """The transitions ``index`` [...], all their fields side by side: [...,W]."""
        flat = index.flatten()
        if not self._pinned:
            return self._store.index_select(0, flat).view(*index.shape, -1)
        # Page-locked memory on the way out too: the copy then runs beside the host.
        way = torch.empty((len(flat), self._store.shape[1]), pin_memory=True)
        torch.index_select(self._store, 0, flat.cpu(), out=way)
        return way.to(self.device, non_blocking=True).view(*index.shape, -1)

    def fields(self, packed: Tensor) -> dict[str, Tensor]:
        """Views by name, [...,*shape], of fields that lie side by side, [...,W]."""
        parts = packed.split_with_sizes(tuple(self._widths.values()), -1)
        named = dict(zip(self._widths, parts, strict=True))
        return named | {name: named[name].squeeze(-1) for name in self._scalars}

    def some_fields(self, packed: Tensor, *names: str) -> dict[str, Tensor]:
        """Those ``names`` of :meth:`fields` alone, which take less time."""
        at = {name: slice(self._start[name], self._start[name] + self._widths[name]) for name in names}
        return {name: packed[..., at[name].start if name in self._scalars else at[name]] for name in names}

    def columns(self, *names: str) -> Tensor:
        """The fields ``names``, which lie side by side in this order, as one view [T,N,W]."""
        if names not in self._columns:
            last = names[-1]
            self._columns[names] = self._rows[..., self._start[names[0]] : self._start[last] + self._widths[last]]
        return self._columns[names]

    def span(self, first: int, count: int) -> Iterator[tuple[slice, slice]]:
        """``count`` rows from ``first`` on, around the ring: slices of rows, and which of the count those are."""
        first %= self.rows
        straight = min(count, self.rows - first)
        yield slice(first, first + straight), slice(0, straight)
        if straight < count:
            yield slice(0, count - straight), slice(straight, count)

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """``index`` [size] of transitions, uniform over all that are written, with replacement."""
        self.check_draw(size)
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
        head, filled = int(state["head"]), int(state["filled"])
        if filled < self.rows and head != filled:
            raise CheckpointError(
                f"the saved buffer was full, with {filled} rows, and this one has {self.rows}; allowed: the same "
                f"capacity, {filled * self.num_envs} transitions"
            )
        # Rows that just fill this ring were not the end of theirs.
        self.head, self.filled = head % self.rows, filled
        for name, tensor in self.data.items():
            tensor[: self.filled].copy_(state["data"][name])
            tensor[self.filled :].fill_(torch.nan)
