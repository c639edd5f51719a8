"""A device that is not there: its tensors lie on the host, under an accelerator's rules.

An operation on tensors of both devices is an error (but for tensors without axes, and for indices from the host, as on
CUDA), and so is NumPy's view of one; what is made with ``device="standin"`` is one. Kernels are the host's, so this
shows where tensors go, not what an accelerator's kernels compute. Importing it gives the process that device for good.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "standin"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)


class There(Tensor):
    """A tensor of the device; ``host`` holds its values."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> There:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=DEVICE,
        )
        made.host = host
        return made

    def __repr__(self, **_: Any) -> str:
        return f"{self.host!r} on {DEVICE}"

    def tolist(self) -> Any:
        """Torch has none for subclasses."""
        return self.host.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """As on CUDA: by ``force`` only, which copies."""
        if not force:
            raise TypeError(f"can't convert a tensor of {DEVICE} to numpy; use Tensor.cpu()")
        return self.host.numpy(force=True).copy()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """``func`` with the host's kernel, its result on the device that torch would put it on."""
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = any(isinstance(leaf, There) for leaf in leaves)
    asked = kwargs.get("device")
    target = None if asked is None else torch.device(asked).type
    if there and func not in COPIES:
        strangers = [leaf for leaf in leaves if not isinstance(leaf, There) and leaf.ndim > 0]
        if strangers and not (func in INDEXED and isinstance(args[0], There)):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {DEVICE} and cpu")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map(lambda leaf: leaf.host if isinstance(leaf, There) else leaf, (args, kwargs))
    result = func(*args, **kwargs)
    if func._schema.is_mutable and func._schema.name.endswith("_"):
        return leaves[0]
    on_device = target == NAME or (target is None and there)
    return tree_map(lambda leaf: There(leaf) if isinstance(leaf, Tensor) and on_device else leaf, result)


def _kernel(func: Any, *args: Any, **kwargs: Any) -> Any:
    return run(func, args, kwargs)


_LIBRARY = torch.library.Library("_", "IMPL")
_LIBRARY.fallback(_kernel, "PrivateUse1")


class StandIn(TorchFunctionMode):
    """While active, ``torch.tensor`` makes tensors of the device too: it copies by a way that no subclass can take."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == NAME:
            return There(func(*args, **{**kwargs, "device": "cpu"}))
        return func(*args, **kwargs)
