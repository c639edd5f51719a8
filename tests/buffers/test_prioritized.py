"""The sum trees against direct sums, and prioritised draws against their probabilities; both kinds of trees."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import attrs
import pytest
import torch

from cvpo import buffers
from cvpo.buffers.compiled_tree import CompiledTree, tree_for
from cvpo.buffers.sumtree import FANOUT, ROOT, SumTree
from cvpo.compiled import switched_off
from cvpo.errors import ConfigError
from tests.buffers.test_buffers import CPU, spec, stream
from tests.fakes import line_agent

SIZES = [1, 5, ROOT, ROOT + 1, 3 * ROOT * FANOUT + 7]


@pytest.fixture(params=[CompiledTree, SumTree], autouse=True)
def kind(request: pytest.FixtureRequest) -> Iterator[type]:
    """The kind of tree that stores are built with."""
    if request.param is CompiledTree:
        pytest.importorskip("numba")
    with contextlib.nullcontext() if request.param is CompiledTree else switched_off():
        assert type(tree_for(1, CPU)) is request.param
        yield request.param


def random_tree(leaves: int, seed: int = 0) -> tuple[SumTree | CompiledTree, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(leaves, generator=generator, dtype=torch.float64)
    values[torch.rand(leaves, generator=generator) < 0.3] = 0.0
    values[-1] = 2.0
    tree = tree_for(leaves, CPU)
    tree.write(torch.arange(leaves), values)
    return tree, values


@pytest.mark.parametrize("leaves", SIZES)
def test_draws_are_those_of_the_cumulative_sums(leaves: int, kind: type) -> None:
    """All at once, or level by level: the node in which a share of the sum of all lies, then the child in which a share
    of its own."""
    tree, values = random_tree(leaves)
    torch.testing.assert_close(tree.total, values.sum())
    shares = torch.rand((tree.shares, 200), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if kind is CompiledTree:
        cumulative = values.cumsum(0)
        right = torch.searchsorted(cumulative, shares[0] * cumulative[-1], right=True)
        assert (tree.draw(shares) == right).float().mean() > 0.99
        return
    expected = torch.zeros(200, dtype=torch.long)
    for level, share in enumerate(shares):
        width = FANOUT ** (len(shares) - 1 - level)
        for i, (first, part) in enumerate(zip(expected.tolist(), share.tolist(), strict=True)):
            below = values[first * width :] if level == 0 else values[first * width : (first + FANOUT) * width]
            sums = torch.stack([piece.sum() for piece in below.split(width)]) if width > 1 else below
            node = int(torch.searchsorted(sums.cumsum(0), part * below.sum(), right=True))
            expected[i] = (first + node) * (FANOUT if level + 1 < len(shares) else 1)
    # Sums in another order round otherwise: a draw on an edge may fall to the neighbour, hardly ever.
    assert (tree.draw(shares) == expected).float().mean() > 0.99


@pytest.mark.parametrize("leaves", SIZES)
def test_a_leaf_of_priority_zero_is_never_drawn(leaves: int) -> None:
    tree, values = random_tree(leaves)
    ends = torch.tensor([0.0, 1.0 - 1e-15], dtype=torch.float64)
    edges = torch.cat([ends, (values.cumsum(0) / values.sum())[:-1][-2000:]]).clamp(max=1.0 - 1e-15)
    for below in (edges, edges.flip(0), ends[1].expand(len(edges))):
        shares = torch.stack([edges] + [below] * (tree.shares - 1))
        assert (values[tree.draw(shares)] > 0).all()
    one = tree_for(leaves, CPU)
    one.write(torch.tensor([leaves // 2]), torch.tensor([1e-300], dtype=torch.float64))
    shares = torch.tensor([0.0, 0.5, 1.0 - 1e-15], dtype=torch.float64).expand(one.shares, -1)
    assert one.draw(shares).tolist() == [leaves // 2] * 3


def test_ranges_and_single_writes_make_the_same_tree() -> None:
    size = 3 * ROOT * FANOUT + 7
    ranges, singles = tree_for(size, CPU), tree_for(size, CPU)
    for first, count, value in ((0, 1024, 0.7), (1000, 77, 0.1), (size - 500, 500, 3.0)):
        ranges.write_range(first, count, torch.tensor(value))
        singles.write(torch.arange(first, first + count), torch.full((count,), value, dtype=torch.float64))
    for a, b in zip(ranges.levels, singles.levels, strict=True):
        torch.testing.assert_close(a, b)


def filled(**options):
    store = buffers.registry.create("prioritized", capacity=90, **options).build(
        spec(), 3, CPU, torch.Generator().manual_seed(0)
    )
    for transition in stream(40, 3):
        store.add(transition)
    return store


def test_frequencies_and_weights_are_those_of_the_priorities() -> None:
    store = filled(alpha=0.5, beta=0.7, floor=0.01)
    index = torch.arange(90)
    td = torch.linspace(0.0, 4.0, 90)
    store.reprioritise(index, td)
    priority = (td.double() + 0.01).sqrt()
    batch = store.sample(90_000)
    counts = torch.bincount(batch.index, minlength=90).double()
    # Strata make counts less random than independent draws would.
    torch.testing.assert_close(counts, 90_000 * priority / priority.sum(), rtol=0.0, atol=2.0)
    expected = (priority[batch.index] / priority.min()) ** -0.7
    torch.testing.assert_close(batch.weight, expected.float())
    assert batch.weight.max() == 1.0


def test_with_full_correction_a_weighted_mean_is_the_mean_of_the_store() -> None:
    store = filled()
    store.reprioritise(torch.arange(90), torch.linspace(0.0, 9.0, 90) ** 2)
    batch = store.sample(60_000)
    weighted = (batch.weight * batch.signals[0]).sum() / batch.weight.sum()
    everything = store.ring.data["signals"][..., 0].mean()
    unweighted = batch.signals[0].mean()
    assert weighted.item() == pytest.approx(everything.item(), rel=2e-3)
    assert abs(unweighted - everything) > 20 * abs(weighted - everything)


def test_a_new_transition_has_the_largest_priority_and_an_old_one_leaves_with_its_row() -> None:
    store = filled()
    store.reprioritise(torch.arange(90), torch.full((90,), 0.1))
    store.reprioritise(torch.tensor([5]), torch.tensor([8.0]))
    head = store.ring.head * 3
    store.add(stream(1, 3)[0])
    leaves = store.tree.levels[0]
    torch.testing.assert_close(leaves[head : head + 3], leaves[5].expand(3))
    torch.testing.assert_close(store.tree.total, leaves.sum())


def test_a_restored_tree_is_equal_bit_for_bit() -> None:
    store = filled()
    for _ in range(5):
        batch = store.sample(16)
        store.reprioritise(batch.index, torch.rand(16))
    other = filled()
    other.load_state_dict(store.state_dict())
    for ours, theirs in zip(store.tree.levels, other.tree.levels, strict=True):
        assert torch.equal(ours, theirs)


def test_a_store_goes_back_to_an_earlier_state() -> None:
    store = filled()
    empty = buffers.registry.create("prioritized", capacity=90).build(spec(), 3, CPU, torch.Generator().manual_seed(0))
    for transition in stream(2, 3):
        empty.add(transition)
    store.load_state_dict(empty.state_dict())
    assert len(store) == 6 and store.sample(200).index.max() < 6
    for ours, theirs in zip(store.tree.levels, empty.tree.levels, strict=True):
        assert torch.equal(ours, theirs)


def test_weights_reach_the_critics_loss_and_nothing_else() -> None:
    """Two agents in the same state, a batch that differs in its weights alone: other critics, the same policy."""
    updated = []
    for weighted in (False, True):
        agent, env = line_agent(1, buffer={"name": "prioritized", "capacity": 500})
        agent.learn(60, warmup_steps=50)
        sample = agent.store.sample

        def weighing(size: int, sample=sample, weighted=weighted):
            batch = sample(size)
            factor = torch.linspace(0.1, 1.0, size) if weighted else 1.0
            return attrs.evolve(batch, weight=batch.weight * factor)

        agent.store.sample = weighing
        agent.update()
        updated.append(agent)
    plain, weighted = (agent.learner.state_dict() for agent in updated)
    for name in plain["policy"]:
        assert torch.equal(plain["policy"][name], weighted["policy"][name])
    assert any(not torch.equal(plain["critic"][name], weighted["critic"][name]) for name in plain["critic"])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_errors_that_are_not_finite_are_refused_and_spoil_nothing(bad):
    store = buffers.registry.create("prioritized", capacity=8).build(spec(), 1, "cpu", torch.Generator().manual_seed(0))
    for step in stream(8, 1):
        store.add(step)
    batch = store.sample(4)
    with pytest.raises(ConfigError, match="TD errors are .*; allowed: finite numbers"):
        store.reprioritise(batch.index, torch.tensor([1.0, bad, 1.0, 1.0]))
    store.reprioritise(batch.index, torch.tensor([-3.0, -3.0, -3.0, -3.0]))
    assert torch.isfinite(store.sample(4).weight).all()


@pytest.mark.parametrize(
    ("index", "td", "message"),
    [
        (torch.tensor([0, 5]), torch.ones(2), "index of reprioritise goes from 0 to 5; allowed: 0 to 4"),
        (torch.tensor([-1, 0]), torch.ones(2), "index of reprioritise goes from -1 to 0"),
        (torch.tensor([10**7]), torch.ones(1), "goes from 10000000 to 10000000"),
        (torch.tensor([0, 1]), torch.ones(1), r"td of reprioritise has shape \[1\]; allowed: \[2\]"),
        (torch.tensor([0.5]), torch.ones(1), "index of reprioritise is torch.float32; allowed: torch.int64"),
    ],
)
def test_what_is_not_stored_has_no_priority(index, td, message):
    store = buffers.registry.create("prioritized", capacity=8).build(spec(), 1, "cpu", torch.Generator().manual_seed(0))
    for step in stream(5, 1):
        store.add(step)
    with pytest.raises(ConfigError, match=message):
        store.reprioritise(index, td)
    assert torch.isfinite(store.sample(50).obs).all()


def test_many_leaves_at_once_are_summed_as_one_by_one() -> None:
    leaves = 3 * ROOT
    tree, other = (tree_for(leaves, CPU) for _ in range(2))
    index = torch.randperm(leaves, generator=torch.Generator().manual_seed(0))
    values = torch.rand(leaves, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for order in (torch.arange(leaves), index):
        tree.write(order, values[order])
        for part in order.split(1_000):
            other.write(part, values[part])
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(tree.levels, other.levels, strict=True))
        tree.clear()
        other.clear()
