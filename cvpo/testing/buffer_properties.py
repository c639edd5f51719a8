"""What a buffer promises, one property each, on a stream of transitions: AssertionError where it breaks."""

from __future__ import annotations

import math
from typing import Any

import torch

from cvpo.testing.buffer_grading import (
    empty,
    equal,
    errors_of,
    lengths,
    overwrite,
    require_each,
    require_single_steps,
    require_windows,
    tensors,
)
from cvpo.testing.drawing import require
from cvpo.testing.transitions import Stream


def filled(buffer: Any, stream: Stream) -> Any:
    """A store with all of ``stream`` added."""
    store = empty(buffer, stream)
    for t in range(len(stream)):
        store.add(stream.step(t))
    return store


def check_windows(buffer: Any, stream: Stream) -> None:
    """Every sampled row against the stream itself."""
    store = filled(buffer, stream)
    require_windows(stream, store.sample(64))


def check_reach(buffer: Any, stream: Stream) -> None:
    """The steps that are drawn are exactly the newest ``len(store)``, a whole number of rows."""
    store = filled(buffer, stream)
    count = len(store)
    require(0 < count <= len(stream) * stream.envs, f"len is {count} after {len(stream)} steps of {stream.envs} envs")
    require(count % stream.envs == 0, f"len is {count}; allowed: as many steps of each of {stream.envs} envs")
    # A step that is as likely as the others is missed with probability e^-30.
    obs = store.sample(30 * count).obs
    drawn = {(int(env), int(time)) for env, time in obs[:, :2].tolist() if math.isfinite(env)}
    first = len(stream) - count // stream.envs
    stored = {(env, time) for env in range(stream.envs) for time in range(first, len(stream))}
    missing, foreign = sorted(stored - drawn), sorted(drawn - stored)
    require(not missing, f"never drawn, of {count} stored steps: (environment, step) {missing[:5]}")
    require(not foreign, f"drawn although overwritten or never added: (environment, step) {foreign[:5]}")


def check_weights(buffer: Any, stream: Stream) -> None:
    """Weights in (0, 1] with 1 among them, also with priorities that differ."""
    store = filled(buffer, stream)
    batch = store.sample(32)
    for words in ("with equal priorities", "with priorities that differ"):
        require(batch.weight.shape == (32,), f"weight has shape {tuple(batch.weight.shape)}; allowed: (32,)")
        require(bool((batch.weight > 0).all()), f"weights reach {float(batch.weight.min())} {words}; allowed: > 0")
        largest = float(batch.weight.max())
        require(abs(largest - 1.0) <= 1e-5, f"the largest weight is {largest:.6g} {words}; allowed: 1")
        store.reprioritise(batch.index, errors_of(batch))
        batch = store.sample(32)


def check_correction(buffer: Any, stream: Stream) -> None:
    """Where some steps are drawn more often than others, they weigh less."""
    store = filled(buffer, stream)
    # As many draws for each step show a ratio of 2 between chances without doubt.
    count = len(store)
    batch = store.sample(30 * count)
    store.reprioritise(batch.index, errors_of(batch))
    batch = store.sample(300 * count)
    _, step, drawn = torch.unique(batch.obs[:, :2], dim=0, return_inverse=True, return_counts=True)
    spread = float((drawn.double() - 300.0).square().sum() / 300.0)
    if spread <= count + 20.0 * math.sqrt(2.0 * count):
        return
    mean = torch.zeros(len(drawn)).index_add(0, step, batch.weight) / drawn
    common, rare = int(drawn.argmax()), int(drawn.argmin())
    require(
        bool(mean[common] < mean[rare]),
        f"a step drawn {int(drawn[common])} times weighs {float(mean[common]):.4g}, one drawn {int(drawn[rare])} times"
        f" {float(mean[rare]):.4g}; allowed: less than it",
    )


def check_priorities(buffer: Any, stream: Stream) -> None:
    """After TD errors from 0 to large, samples are still windows of what was added."""
    store = filled(buffer, stream)
    batch = store.sample(32)
    before = batch.index.clone(), errors_of(batch)
    store.reprioritise(*before)
    same = torch.equal(before[0], batch.index) and torch.equal(before[1], errors_of(batch))
    require(same, "reprioritise changed its inputs in place")
    require_windows(stream, store.sample(32))


def check_copies(buffer: Any, stream: Stream) -> None:
    """Tensors that were added, or sampled, may be changed afterwards."""
    store = empty(buffer, stream)
    for t in range(len(stream)):
        step = stream.step(t)
        store.add(step)
        overwrite(step)
    batch = store.sample(32)
    require_windows(stream, batch)
    overwrite(batch)
    require_windows(stream, store.sample(32))


def check_state(buffer: Any, stream: Stream) -> None:
    """A store that is restored, its generator with it, gives the same samples for ever after."""
    half = len(stream) // 2
    ours, theirs = torch.Generator().manual_seed(0), torch.Generator().manual_seed(5)
    store, other = empty(buffer, stream, ours), empty(buffer, stream, theirs)
    for t in range(max(half, 1)):
        store.add(stream.step(t))
    batch = store.sample(8)
    store.reprioritise(batch.index, errors_of(batch))
    other.load_state_dict(store.state_dict())
    theirs.set_state(ours.get_state())
    for t in range(max(half, 1), len(stream)):
        store.add(stream.step(t))
        other.add(stream.step(t))
    samples = (tensors(each.sample(32)) for each in (store, other))
    for a, b in zip(*samples, strict=True):
        require(equal(a, b), "a restored store samples otherwise than the one that was saved")


def check_optional(buffer: Any, stream: Stream) -> None:
    """``extend``, where a store has it, holds what adding step by step does; after ``end`` no window goes on from
    before; the single steps of a window are those that were added."""
    store, half = empty(buffer, stream), len(stream) // 2
    for t in range(half):
        store.add(stream.step(t))
    stop = half if hasattr(store, "end") else None
    if stop is not None:
        store.end()
    if hasattr(store, "extend") and half < len(stream):
        rest = [stream.step(t) for t in range(half, len(stream))]
        stacked = zip(*(tensors(step) for step in rest), strict=True)
        store.extend(type(rest[0])(*(torch.stack(parts) for parts in stacked)))
    else:
        for t in range(half, len(stream)):
            store.add(stream.step(t))
    batch, one_by_one = store.sample(64), empty(buffer, stream)
    require_windows(stream, batch)
    for t in range(len(stream)):
        if t == stop:
            one_by_one.end()
        one_by_one.add(stream.step(t))
    for a, b in zip(tensors(batch), tensors(one_by_one.sample(64)), strict=True):
        require(equal(a, b), "extend stores otherwise than one by one")
    time = batch.obs[:, 1].long()
    length = lengths(stream, batch)
    if stop is not None:
        require_each(batch, (time >= stop) | (time + length <= stop), "the window goes on beyond end()")
    if batch.window is not None:
        require_single_steps(stream, batch, length)
