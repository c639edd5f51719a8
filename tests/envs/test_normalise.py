"""Running normalisation against the two-pass mean and standard deviation."""

from __future__ import annotations

import torch

from cvpo.envs import ObservationNormaliser


def test_agrees_with_two_passes_and_survives_a_round_trip():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(1000, 3, generator=generator) * torch.tensor([1.0, 1e-2, 1e3]) + torch.tensor([0.0, 1e2, -1e4])
    running = ObservationNormaliser(3)
    assert torch.equal(running(data), data.clamp(-10, 10))
    for chunk in data.split([1, 7, 500, 492]):
        running.update(chunk)
    expected = (data.double() - data.double().mean(0)) / data.double().std(0, unbiased=False)
    assert torch.allclose(running(data).double(), expected.clamp(-10, 10), atol=1e-2)
    assert torch.allclose(running.mean, data.double().mean(0), rtol=1e-12)
    assert torch.allclose(running.square / running.count, data.double().var(0, unbiased=False), rtol=1e-9)
    other = ObservationNormaliser(3)
    other.load_state_dict({name: value.clone() for name, value in running.state_dict().items()})
    running.update(data)
    other.update(data)
    assert torch.equal(running(data), other(data))


def test_constant_entries_stay_finite():
    running = ObservationNormaliser(2)
    for _ in range(5):
        running.update(torch.ones(10, 2))
    assert torch.equal(running(torch.ones(1, 2)), torch.zeros(1, 2))
    assert running(torch.full((1, 2), 1e9)).abs().max() == 10


def test_a_snapshot_stays_what_it_was():
    running = ObservationNormaliser(2)
    running.update(torch.randn(100, 2, generator=torch.Generator().manual_seed(0)))
    snapshot, before = running.state_dict(), running(torch.ones(1, 2))
    running.update(torch.full((100, 2), 50.0))
    running.load_state_dict(snapshot)
    assert torch.equal(running(torch.ones(1, 2)), before)
