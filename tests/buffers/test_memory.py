"""Memory is stated in bytes before anything is allocated, and what does not fit is an error that says so."""

from __future__ import annotations

import pytest
import torch

from cvpo import buffers
from cvpo.buffers import memory
from cvpo.buffers.compiled_tree import CompiledTree
from cvpo.buffers.ring import Ring
from cvpo.buffers.sumtree import SumTree
from cvpo.errors import ConfigError
from tests.buffers.test_buffers import CPU, spec, stream


def test_the_bytes_of_a_ring_are_those_of_its_tensors() -> None:
    ring = buffers.registry.create("uniform", capacity=100).build(spec(), 3, CPU, torch.Generator()).ring
    assert ring.nbytes == sum(tensor.nbytes for tensor in ring.data.values())


def test_what_does_not_fit_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 2**20)
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: pytest.fail("allocated all the same"))
    message = r"a buffer of 50000 transitions takes 2000000 bytes \(2 MiB\) on cpu; 1 MiB are available; choose"
    with pytest.raises(ConfigError, match=message):
        Ring(50_000, 2, {"obs": (10,)}, CPU)


def test_priorities_are_counted_and_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = buffers.registry.create("prioritized", capacity=2**20)
    store = buffer.build(spec(), 4, CPU, torch.Generator())
    assert store.nbytes == store.ring.nbytes + sum(level.nbytes for level in store.tree.levels)
    monkeypatch.setattr(memory, "available", lambda device: 2**20)
    with pytest.raises(ConfigError, match=r"a tree of 1048576 priorities takes 8519680 bytes .*; choose a smaller"):
        SumTree(2**20, CPU)
    with pytest.raises(ConfigError, match=r"a tree of 1048576 priorities takes 9587008 bytes .*; choose a smaller"):
        CompiledTree(2**20, None)


def test_pinned_storage_samples_what_the_device_does() -> None:
    """Without an accelerator there is nothing to lock; the draws and the rows are the same."""
    for name in buffers.registry.names():
        stores = [
            buffers.registry.create(name, capacity=60, storage=storage).build(
                spec(), 3, CPU, torch.Generator().manual_seed(0)
            )
            for storage in ("device", "pinned")
        ]
        for store in stores:
            for transition in stream(30, 3):
                store.add(transition)
        one, other = (store.sample(50) for store in stores)
        assert torch.equal(one.obs, other.obs) and torch.equal(one.signals, other.signals)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs an accelerator")
def test_pinned_storage_stays_on_the_host_and_samples_arrive_on_the_device() -> None:
    cuda = torch.device("cuda")
    generator = torch.Generator(cuda).manual_seed(0)
    store = buffers.registry.create("nstep", capacity=60, storage="pinned").build(spec(), 3, cuda, generator)
    for transition in stream(30, 3):
        store.add(transition.to(cuda))
    assert store.ring.data["obs"].is_pinned()
    batch = store.sample(50)
    assert batch.obs.device.type == "cuda" and torch.isfinite(batch.obs).all()


def test_the_system_says_what_is_free() -> None:
    free = memory.available(CPU)
    assert free is None or 2**20 < free < 2**50
    assert memory._number(memory.Path("/no/such/file")) is None


@pytest.mark.parametrize("name", buffers.registry.names())
@pytest.mark.parametrize("steps", [10, 20, 35])
def test_extend_is_adding_one_by_one(name: str, steps: int) -> None:
    """Twenty rows, of which seven are written already: with room, full to the brim, and round the end."""
    stores = [
        buffers.registry.create(name, capacity=60).build(spec(), 3, CPU, torch.Generator().manual_seed(0))
        for _ in range(2)
    ]
    transitions = stream(7 + steps, 3)
    for store in stores:
        for transition in transitions[:7]:
            store.add(transition)
    for transition in transitions[7:]:
        stores[0].add(transition)
    names = ("obs", "action", "signals", "next_obs", "terminated", "truncated")
    stacked = {name: torch.stack([getattr(transition, name) for transition in transitions[7:]]) for name in names}
    stores[1].extend(type(transitions[0])(**stacked))
    one, many = (store.sample(500) for store in stores)
    for field in ("obs", "signals", "next_obs", "terminated", "discount", "weight", "index"):
        assert torch.equal(getattr(one, field), getattr(many, field))
