"""Means of metrics over updates."""

from __future__ import annotations

import torch

from cvpo.metrics import Means


def numbers(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_means_are_over_the_updates_since_they_were_taken():
    means = Means()
    assert means.take() == {}
    means.add(numbers(a=1.0, b=2.0))
    means.add(numbers(b=4.0, a=2.0))
    assert means.take() == {"a": 1.5, "b": 3.0}
    assert means.take() == {}


def test_a_checkpoint_with_other_metrics_is_gone_on_with_from_there():
    before, means = Means(), Means()
    before.add(numbers(a=1.0, gone=2.0))
    means.load_state_dict(before.state_dict())
    means.add(numbers(a=3.0, new=4.0))
    assert means.take() == {"a": 3.0, "new": 4.0}


def test_members_of_a_population_are_taken_apart_and_put_together():
    means, again = Means(), Means()
    for value in (1.0, 2.0):
        means.add({"a": torch.tensor([value, 10.0 * value]), "b": torch.tensor([0.0, value])})
    parts = [means.member_state(index) for index in range(2)]
    alone = Means()
    alone.load_state_dict(parts[1])
    assert alone.take() == {"a": 15.0, "b": 1.5}
    again.load_member_states(parts)
    assert again.take() == means.take() == {"a": [1.5, 15.0], "b": [0.0, 1.5]}


def test_a_state_is_a_copy():
    means, other = Means(), Means()
    means.add(numbers(a=1.0))
    saved = means.state_dict()
    other.load_state_dict(saved)
    means.add(numbers(a=5.0))
    other.add(numbers(a=2.0))
    assert means.take() == {"a": 3.0} and other.take() == {"a": 1.5}
    means.load_state_dict(saved)
    assert means.take() == {"a": 1.0}
