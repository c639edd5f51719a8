"""What the buffer properties judge with: a batch against the stream that it was drawn from."""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
from torch import Tensor

from cvpo.testing.drawing import require
from cvpo.testing.transitions import Stream
from cvpo.types import Batch

CPU = torch.device("cpu")


def tensors(record: Any) -> list[Tensor]:
    """What a record holds, and the records within it."""
    found: list[Tensor] = []
    for part in attrs.astuple(record, recurse=False):
        if attrs.has(type(part)):
            found += tensors(part)
        elif part is not None:
            found.append(part)
    return found


def equal(a: Tensor, b: Tensor) -> bool:
    """Bit for bit; NaN stands for what was not told, such as the behaviour's log-probabilities."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def overwrite(record: Any) -> None:
    """Fill every tensor of a record with 7."""
    for value in tensors(record):
        value.fill_(7)


def require_windows(stream: Stream, batch: Batch) -> None:
    """Every row of ``batch`` is a window of ``stream``: its sums, its last step, and nothing beyond an episode."""
    spec, size = stream.spec, batch.obs.shape[0]
    shapes = {
        "obs": (size, spec.obs_size),
        "action": (size, spec.action_size),
        "signals": (spec.signals, size),
        "next_obs": (size, spec.obs_size),
        "terminated": (size,),
        "discount": (size,),
    }
    for name, shape in shapes.items():
        value, dtype = getattr(batch, name), torch.bool if name == "terminated" else torch.float32
        require(value.shape == shape, f"{name} has shape {tuple(value.shape)}; allowed: {shape}")
        require(value.dtype == dtype, f"{name} is {value.dtype}; allowed: {dtype}")
    require(bool(torch.isfinite(batch.obs).all()), "obs is NaN: a row that was never written")
    env, time = batch.obs[:, 0].long(), batch.obs[:, 1].long()
    length = lengths(stream, batch)
    whole = (batch.discount - spec.gamma ** length.float()).abs() <= 1e-5
    require_each(batch, whole & (length >= 1), "discount is no power of gamma")
    require_each(batch, time + length <= len(stream), "the window goes on after the newest step")
    done = stream.terminated | stream.truncated
    expected, alive, weight = torch.zeros_like(batch.signals), torch.ones_like(whole), 1.0
    for i in range(int(length.max())):
        inside = i < length
        at = (time + i).clamp(max=len(stream) - 1)
        require_each(batch, ~inside | alive, "the window crosses the end of an episode")
        expected += weight * inside * stream.signals[at, :, env].T
        alive &= ~done[at, env]
        weight *= spec.gamma
    last = time + length - 1
    require_each(batch, near(batch.obs, stream.obs[time, env]), "obs is not what was added")
    require_each(batch, near(batch.action, stream.action[time, env]), "action is not what was added")
    require_each(batch, near(batch.signals.T, expected.T), "signals are not the discounted sum over the window")
    require_each(
        batch, near(batch.next_obs, stream.next_obs[last, env]), "next_obs is not that of the window's last step"
    )
    ended = batch.terminated == stream.terminated[last, env]
    require_each(batch, ended, "terminated is not that of the window's last step (truncation must bootstrap)")


def lengths(stream: Stream, batch: Batch) -> Tensor:
    """Steps of each window [B], as its discount says."""
    return (batch.discount.double().log() / math.log(stream.spec.gamma)).round().long()


def require_single_steps(stream: Stream, batch: Batch, length: Tensor) -> None:
    """The single steps of windows of ``length`` [B] steps are those of ``stream``."""
    window = batch.window
    assert window is not None
    env, time = batch.obs[:, 0].long(), batch.obs[:, 1].long()
    for i in range(window.inside.shape[1]):
        inside = i < length
        at = (time + i).clamp(max=len(stream) - 1)
        require_each(batch, window.inside[:, i] == inside, f"window.inside is wrong at step {i}")
        right = near(window.signals[..., i].T, stream.signals[at, :, env]) & near(window.obs[:, i], stream.obs[at, env])
        require_each(batch, ~inside | right, f"window.obs or window.signals are not those of step {i}")


def require_each(batch: Batch, holds: Tensor, message: str) -> None:
    """Raise AssertionError, with the first row where it is not so, unless ``holds`` [B]."""
    if not bool(holds.all()):
        i = int((~holds).nonzero()[0])
        env, time = batch.obs[i, :2].tolist()
        raise AssertionError(f"{message}: environment {env:g}, step {time:g}, discount {float(batch.discount[i]):.4g}")


def near(found: Tensor, expected: Tensor) -> Tensor:
    """Rows that agree to 1e-5 [B]."""
    return ((found - expected).abs() <= 1e-5).all(-1)


def errors_of(batch: Batch) -> Tensor:
    """TD errors from 0 to 100, fixed by the transition."""
    return 100.0 * torch.frac(batch.obs[:, 0] * 0.37 + batch.obs[:, 1] * 0.61)


def empty(buffer: Any, stream: Stream, generator: torch.Generator | None = None) -> Any:
    """A store of ``buffer`` for ``stream``, nothing in it."""
    return buffer.build(stream.spec, stream.envs, CPU, generator or torch.Generator().manual_seed(0))
