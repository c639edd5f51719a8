"""What a buffer promises, one property each, on a stream of transitions: AssertionError where it breaks."""

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


def filled(buffer: Any, stream: Stream) -> Any:
    """A store with all of ``stream`` added."""
    store = _empty(buffer, stream)
    for t in range(len(stream)):
        store.add(stream.step(t))
    return store


def check_windows(buffer: Any, stream: Stream) -> None:
    """Every sampled row against the stream itself."""
    store = filled(buffer, stream)
    _check_batch(stream, store, store.sample(64))


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
        store.reprioritise(batch.index, _errors(batch))
        batch = store.sample(32)


def check_correction(buffer: Any, stream: Stream) -> None:
    """Where some steps are drawn more often than others, they weigh less."""
    store = filled(buffer, stream)
    # As many draws for each step show a ratio of 2 between chances without doubt.
    count = len(store)
    batch = store.sample(30 * count)
    store.reprioritise(batch.index, _errors(batch))
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
    before = batch.index.clone(), _errors(batch)
    store.reprioritise(*before)
    same = torch.equal(before[0], batch.index) and torch.equal(before[1], _errors(batch))
    require(same, "reprioritise changed its inputs in place")
    _check_batch(stream, store, store.sample(32))


def check_copies(buffer: Any, stream: Stream) -> None:
    """Tensors that were added, or sampled, may be changed afterwards."""
    store = _empty(buffer, stream)
    for t in range(len(stream)):
        step = stream.step(t)
        store.add(step)
        _overwrite(step)
    batch = store.sample(32)
    _check_batch(stream, store, batch)
    _overwrite(batch)
    _check_batch(stream, store, store.sample(32))


def check_state(buffer: Any, stream: Stream) -> None:
    """A store that is restored, its generator with it, gives the same samples for ever after."""
    half = len(stream) // 2
    ours, theirs = torch.Generator().manual_seed(0), torch.Generator().manual_seed(5)
    store, other = _empty(buffer, stream, ours), _empty(buffer, stream, theirs)
    for t in range(max(half, 1)):
        store.add(stream.step(t))
    batch = store.sample(8)
    store.reprioritise(batch.index, _errors(batch))
    other.load_state_dict(store.state_dict())
    theirs.set_state(ours.get_state())
    for t in range(max(half, 1), len(stream)):
        store.add(stream.step(t))
        other.add(stream.step(t))
    samples = (_tensors(each.sample(32)) for each in (store, other))
    for a, b in zip(*samples, strict=True):
        require(_equal(a, b), "a restored store samples otherwise than the one that was saved")


def check_optional(buffer: Any, stream: Stream) -> None:
    """``extend``, where a store has it, holds what adding step by step does; after ``end`` no window goes on from
    before; the single steps of a window are those that were added."""
    store, half = _empty(buffer, stream), len(stream) // 2
    for t in range(half):
        store.add(stream.step(t))
    if hasattr(store, "end"):
        store.end()
    stop = half if hasattr(store, "end") else None
    if hasattr(store, "extend") and half < len(stream):
        rest = [stream.step(t) for t in range(half, len(stream))]
        stacked = zip(*(_tensors(step) for step in rest), strict=True)
        store.extend(type(rest[0])(*(torch.stack(parts) for parts in stacked)))
    else:
        for t in range(half, len(stream)):
            store.add(stream.step(t))
    batch, one_by_one = store.sample(64), _empty(buffer, stream)
    _check_batch(stream, store, batch)
    for t in range(len(stream)):
        if t == stop:
            one_by_one.end()
        one_by_one.add(stream.step(t))
    for a, b in zip(_tensors(batch), _tensors(one_by_one.sample(64)), strict=True):
        require(_equal(a, b), "extend stores otherwise than one by one")
    time = batch.obs[:, 1].long()
    length = (batch.discount.double().log() / math.log(stream.spec.gamma)).round().long()
    if stop is not None:
        _each(batch, (time >= stop) | (time + length <= stop), "the window goes on beyond end()")
    if batch.window is not None:
        _check_single_steps(stream, batch, length)


def _check_single_steps(stream: Stream, batch: Batch, length: Tensor) -> None:
    window = batch.window
    assert window is not None
    env, time = batch.obs[:, 0].long(), batch.obs[:, 1].long()
    for i in range(window.inside.shape[1]):
        inside = i < length
        at = (time + i).clamp(max=len(stream) - 1)
        _each(batch, window.inside[:, i] == inside, f"window.inside is wrong at step {i}")
        right = _near(window.signals[..., i].T, stream.signals[at, :, env]) & _near(
            window.obs[:, i], stream.obs[at, env]
        )
        _each(batch, ~inside | right, f"window.obs or window.signals are not those of step {i}")


def _tensors(record: Any) -> list[Tensor]:
    """What a record holds, and the records within it."""
    found: list[Tensor] = []
    for part in attrs.astuple(record, recurse=False):
        if attrs.has(type(part)):
            found += _tensors(part)
        elif part is not None:
            found.append(part)
    return found


def _equal(a: Tensor, b: Tensor) -> bool:
    """Bit for bit; NaN stands for what was not told, such as the behaviour's log-probabilities."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _overwrite(record: Any) -> None:
    for value in _tensors(record):
        value.fill_(7)


def _check_batch(stream: Stream, store: Any, batch: Batch) -> None:
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
        found = tuple(getattr(batch, name).shape)
        require(found == shape, f"{name} has shape {found}; allowed: {shape}")
    require(batch.terminated.dtype == torch.bool, f"terminated is {batch.terminated.dtype}; allowed: torch.bool")
    require(bool(torch.isfinite(batch.obs).all()), "obs is NaN: a row that was never written")
    env, time = batch.obs[:, 0].long(), batch.obs[:, 1].long()
    length = (batch.discount.double().log() / math.log(spec.gamma)).round().long()
    whole = (batch.discount - spec.gamma ** length.float()).abs() <= 1e-5
    _each(batch, whole & (length >= 1), "discount is no power of gamma")
    _each(batch, time + length <= len(stream), "the window goes on after the newest step")
    done = stream.terminated | stream.truncated
    expected, alive, weight = torch.zeros_like(batch.signals), torch.ones_like(whole), 1.0
    for i in range(int(length.max())):
        inside = i < length
        at = (time + i).clamp(max=len(stream) - 1)
        _each(batch, ~inside | alive, "the window crosses the end of an episode")
        expected += weight * inside * stream.signals[at, :, env].T
        alive &= ~done[at, env]
        weight *= spec.gamma
    last = time + length - 1
    _each(batch, _near(batch.obs, stream.obs[time, env]), "obs is not what was added")
    _each(batch, _near(batch.action, stream.action[time, env]), "action is not what was added")
    _each(batch, _near(batch.signals.T, expected.T), "signals are not the discounted sum over the window")
    _each(batch, _near(batch.next_obs, stream.next_obs[last, env]), "next_obs is not that of the window's last step")
    ended = batch.terminated == stream.terminated[last, env]
    _each(batch, ended, "terminated is not that of the window's last step (truncation must bootstrap)")


def _each(batch: Batch, holds: Tensor, message: str) -> None:
    if not bool(holds.all()):
        i = int((~holds).nonzero()[0])
        env, time = batch.obs[i, :2].tolist()
        raise AssertionError(f"{message}: environment {env:g}, step {time:g}, discount {float(batch.discount[i]):.4g}")


def _near(found: Tensor, expected: Tensor) -> Tensor:
    return ((found - expected).abs() <= 1e-5).all(-1)


def _errors(batch: Batch) -> Tensor:
    """TD errors from 0 to 100, fixed by the transition."""
    return 100.0 * torch.frac(batch.obs[:, 0] * 0.37 + batch.obs[:, 1] * 0.61)


def _empty(buffer: Any, stream: Stream, generator: torch.Generator | None = None) -> Any:
    return buffer.build(stream.spec, stream.envs, CPU, generator or torch.Generator().manual_seed(0))
