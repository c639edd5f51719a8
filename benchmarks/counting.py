"""Counts that do not depend on the speed of the machine: operations, bytes, synchronisations, live tensors.

:class:`Counter` sees every operator that torch dispatches while it is active, those of the backward pass included, and
books it under the stage that is running. Bytes are those of the tensors that operators return in new memory: what a
kernel allocates and frees inside itself is not seen. A synchronisation is an operator or a method whose result the
host waits for; on a CPU nothing waits, but the same update on a GPU would.
"""

from __future__ import annotations

import gc
from collections import Counter as Tally
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

#: Operators with a result, or a shape, that the host reads; ``item``, ``bool`` and ``float`` of a tensor are the first.
SYNCHRONISING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2"}
#: Operators that synchronise where they are given a mask: the shape of what it selects is read from it.
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
#: Methods that hand memory to the host without an operator of their own on a CPU.
HANDED_OVER = {"tolist", "numpy", "__array__"}


class Counter(TorchDispatchMode):
    """Counts by stage while it is entered; ``stage()`` names the one that is running.

    ``operations``, ``bytes`` and ``syncs`` map a stage to its count, ``names`` (stage, operator) to calls.
    """

    def __init__(self, stage: Callable[[], str] = lambda: "all") -> None:
        super().__init__()
        self.stage = stage
        self.operations: Tally[str] = Tally()
        self.bytes: Tally[str] = Tally()
        self.syncs: Tally[str] = Tally()
        self.names: Tally[tuple[str, str]] = Tally()
        self._methods = _Methods(self)

    def __enter__(self) -> Counter:
        self._methods.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._methods.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        stage, name = self.stage(), func.overloadpacket.__name__
        given = {each.untyped_storage().data_ptr() for each in _tensors((args, tuple((kwargs or {}).values())))}
        self.operations[stage] += 1
        self.names[stage, name] += 1
        if name in SYNCHRONISING or (name in INDEXING and _masks(args[1])):
            self.syncs[stage] += 1
        # What shares memory with an argument, a view or the result of an operator in place, is not new.
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in _tensors(out)}
        self.bytes[stage] += sum(size for address, size in storages.items() if address not in given)
        return out


class _Methods(TorchFunctionMode):
    """The methods that no dispatch shows."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in HANDED_OVER:
            self.counter.syncs[self.counter.stage()] += 1
        return func(*args, **(kwargs or {}))


def live_tensors() -> tuple[int, int]:
    """(number, bytes) of the tensors that Python can reach, memory shared by several counted once; not those without
    memory that tracing leaves."""
    gc.collect()
    found = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor) and type(each) is not FakeTensor]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in found}
    return len(found), sum(storages.values())


def _masks(indices: Any) -> bool:
    return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in indices)


def _tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in nested sequences."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [each for part in value for each in _tensors(part)] if isinstance(value, (list, tuple)) else []
