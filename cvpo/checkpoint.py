"""Checkpoints: a tree of plain values and tensors in one safetensors file, written atomically, read without executing
code, and checked against its own digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from cvpo.errors import CheckpointError
from cvpo.extras import require
from cvpo.files import replacing

_NAME = re.compile(r"^step-(\d+)\.safetensors$")


def write(path: str | os.PathLike[str], tree: Any) -> None:
    """Write ``tree`` (dicts, lists, tuples, numbers, strings, None, tensors, arrays) to ``path``, all or nothing.

    The file appears under its name only when it is whole and on disk; whatever stood there before stays until then.
    Raises CheckpointError naming the path where writing fails (a full disk, a missing right) or a value has no place.
    """
    safetensors = _safetensors()
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_flatten(tree, tensors))
    payload = safetensors.save(tensors, metadata={"tree": structure, "digest": _digest(structure, tensors)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, "wb") as file:
            file.write(payload)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} could not be written: {error.strerror or error}") from error


def read(path: str | os.PathLike[str]) -> Any:
    """The tree that :func:`write` wrote. Raises CheckpointError where the file is missing, truncated or damaged."""
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    structure = metadata.get("tree", "")
    if not structure or metadata.get("digest") != _digest(structure, tensors):
        raise CheckpointError(f"checkpoint {path} is damaged: its digest does not match its content")
    return _unflatten(json.loads(structure), tensors)


@attrs.frozen
class CheckpointFolder:
    """The newest ``keep`` checkpoints of a run, ``step-<number>.safetensors``."""

    path: Path
    keep: int = 3

    def write(self, step: int, tree: Any) -> Path:
        """Write the checkpoint of ``step``, then remove the oldest beyond ``keep``."""
        target = self._of(step)
        write(target, tree)
        for _, old in self.files()[: -self.keep]:
            old.unlink(missing_ok=True)
        return target

    def at(self, step: int) -> Any:
        """The tree of the checkpoint of ``step``. Raises CheckpointError where it is missing or damaged."""
        return read(self._of(step))

    def files(self) -> list[tuple[int, Path]]:
        """(step, path), oldest first."""
        found = ((_NAME.match(path.name), path) for path in self.path.glob("step-*.safetensors"))
        return sorted((int(match[1]), path) for match, path in found if match)

    def newest(self, warn: Any = None) -> tuple[int, Any]:
        """(step, tree) of the newest checkpoint that is whole; ``warn(message)`` is told of each that is passed over.

        Raises CheckpointError where there is none.
        """
        files = self.files()
        for left, (step, path) in zip(reversed(range(len(files))), reversed(files), strict=True):
            try:
                return step, read(path)
            except CheckpointError as error:
                if not left:
                    raise CheckpointError(f"{error}; no checkpoint in {self.path} is whole") from error
                if warn is not None:
                    warn(f"{error}; trying the one before it")
        raise CheckpointError(f"there is no checkpoint in {self.path}")

    def _of(self, step: int) -> Path:
        return self.path / f"step-{step:010d}.safetensors"


def _flatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON structure with tensors replaced by their names; bool before int, since a bool is an int."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        name = str(len(tensors))
        # In NumPy a contiguous array has an axis, whether the array had one or not.
        tensor = torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value.detach()
        # A copy of its own: safetensors refuses tensors that share memory.
        tensors[name] = tensor.cpu().reshape(value.shape).clone(memory_format=torch.contiguous_format)
        return {"array" if isinstance(value, np.ndarray) else "tensor": name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {"items": [[_flatten(k, tensors), _flatten(v, tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        # One with names comes back as a plain tuple: nothing in a file says what to make of it.
        return {"tuple" if isinstance(value, tuple) else "list": [_flatten(item, tensors) for item in value]}
    raise CheckpointError(
        f"a {type(value).__name__} cannot be saved: {value!r}; allowed: tensors, arrays, numbers, strings, dicts, lists"
    )


def _unflatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "items":
        return {_unflatten(k, tensors): _unflatten(v, tensors) for k, v in content}
    items = [_unflatten(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def _digest(structure: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(structure.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _safetensors() -> Any:
    return require("safetensors.torch", "a checkpoint", "train")
