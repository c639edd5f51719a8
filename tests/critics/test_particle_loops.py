"""Particles in compiled loops are those of torch's own operations, whatever the shapes, the dtype and the threads."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cvpo import particles
from cvpo.compiled import loops, switched_off
from cvpo.networks import StackedMLP
from tests.processes import python

pytestmark = pytest.mark.skipif(loops("cvpo.particle_loops") is None, reason="needs Numba")

STATES, COUNT = 33, 6


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def network(stack: int = 3, inputs: int = 7, hidden: tuple[int, ...] = (32, 48), outputs: int = 1) -> StackedMLP:
    made = StackedMLP(stack, inputs, hidden, outputs, generator=torch.Generator().manual_seed(0))
    for bias in (layer.bias for layer in (*made.layers, made.head)):
        torch.nn.init.normal_(bias.data, generator=torch.Generator().manual_seed(1))
    return made


def given(actions: int, stack: int = 1, inputs: int = 7, states: int = STATES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    shared = torch.randn(stack, states, inputs - actions, generator=generator)
    return shared, torch.randn(stack, states, COUNT, actions, generator=generator)


@torch.no_grad()
def both(net: StackedMLP, *rest: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """By loops and without."""
    looped = net.particles(*rest, dtype=dtype)
    with switched_off():
        return looped, net.particles(*rest, dtype=dtype)


@pytest.mark.parametrize("actions", [1, 2, 3, 6])
@pytest.mark.parametrize("hidden", [(32, 48), (48, 16, 40)])
@pytest.mark.parametrize("outputs", [1, 5])
def test_loops_give_what_torch_gives(threads: int, actions: int, hidden: tuple[int, ...], outputs: int) -> None:
    looped, plain = both(network(hidden=hidden, outputs=outputs), *given(actions))
    assert looped.shape == (3, STATES, COUNT, outputs)
    torch.testing.assert_close(looped, plain, rtol=1e-5, atol=1e-5)


def test_products_in_bfloat16_round_as_torch_does(threads: int) -> None:
    looped, plain = both(network(hidden=(32, 48, 16)), *given(2), dtype=torch.bfloat16)
    exact, _ = both(network(hidden=(32, 48, 16)), *given(2))
    rounding = (plain - exact).square().mean().sqrt()
    assert 0 < rounding and (looped - plain).square().mean().sqrt() < 0.2 * rounding


def test_each_network_may_have_inputs_of_its_own(threads: int) -> None:
    looped, plain = both(network(), *given(2, stack=3))
    torch.testing.assert_close(looped, plain, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_some_networks_of_the_stack_alone(threads: int) -> None:
    some = network().particles(*given(2), networks=slice(1, 3))
    torch.testing.assert_close(some, network().particles(*given(2))[1:], rtol=0, atol=0)


def test_states_by_parts_and_by_threads_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    before, found = torch.get_num_threads(), []
    for threads, at_once in ((1, 2**22), (2, 2**22), (3, 2**12), (1, 1)):
        torch.set_num_threads(threads)
        monkeypatch.setattr(particles, "AT_ONCE", at_once)
        found.append(both(network(), *given(2))[0])
    torch.set_num_threads(before)
    # Products of fewer rows may add up in another order.
    assert torch.equal(found[0], found[1])
    for other in found[2:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(dtype: torch.dtype | None, bad: float) -> None:
    net, (shared, rows) = network(), given(2)
    rows[0, 3, 2, 1] = bad
    looped, plain = both(net, shared, rows, dtype=dtype)
    assert torch.equal(looped.isfinite(), plain.isfinite()) and not looped[:, 3, 2].isfinite().any()
    assert looped.isfinite().sum() == looped.numel() - 3


@pytest.mark.parametrize("states", [0, 1])
def test_few_states_or_none(states: int) -> None:
    looped, plain = both(network(), *given(2, states=states))
    assert looped.shape == (3, states, COUNT, 1)
    torch.testing.assert_close(looped, plain, rtol=1e-5, atol=1e-5)


def test_gradients_and_other_networks_go_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(particles, "rectified", None)
    shared, rows = given(2)
    assert network().particles(shared, rows).requires_grad
    with torch.no_grad():
        network(hidden=(16,)).particles(shared, rows)
        network().double().particles(shared.double(), rows.double())
        StackedMLP(2, 7, (16, 16), 1, activation="tanh").particles(shared, rows)
        StackedMLP(2, 7, (16, 16), 1, layer_norm=True).particles(shared, rows)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_of_products_go_by_torch(dtype: torch.dtype) -> None:
    if dtype == torch.float16:
        looped, plain = both(network(), *given(2), dtype=dtype)
        assert torch.equal(looped, plain)
    shared, rows = (part.to(dtype) for part in given(2))
    net = network().to(dtype)
    assert torch.equal(*both(net, shared, rows))


@torch.no_grad()
def test_so_do_shapes_that_torch_broadcasts_or_refuses() -> None:
    net, (shared, rows) = network(), given(2)
    assert torch.equal(*both(net, shared[:, :1], rows))
    for bad in ((shared[:, :3], rows), (shared, rows[..., :1]), (shared, torch.cat([rows, rows[..., :1]], -1))):
        with pytest.raises(RuntimeError):
            net.particles(*bad)
    with pytest.raises(RuntimeError):
        net.particles(shared, rows.expand(2, -1, -1, -1))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_transforms_and_contexts_of_torch_see_its_operations() -> None:
    net, (shared, rows) = network().requires_grad_(False), given(2)
    expected = net.particles(shared, rows)
    several = torch.vmap(lambda part: net.particles(shared, part))(torch.stack([rows, rows]))
    torch.testing.assert_close(several[1], expected, rtol=1e-5, atol=1e-5)
    traced = torch.jit.trace(lambda a, b: net.particles(a, b), (shared, rows), check_trace=False)
    torch.testing.assert_close(traced(shared, 2.0 * rows), net.particles(shared, 2.0 * rows), rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert net.particles(shared, rows).shape == expected.shape
    with torch.device("meta"):
        assert torch.equal(net.particles(shared, rows), expected)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(rows, torch.ones_like(rows))
        assert not particles.fits(shared, dual, [(layer.weight, layer.bias) for layer in net.layers] * 2, torch.float32)


COUNTED = """
import torch
from cvpo.networks import StackedMLP
torch.set_num_threads(2)
with torch.no_grad():
    StackedMLP(2, 7, (16, 16), 1).particles(torch.randn(1, 9, 5), torch.randn(1, 9, 4, 2))
print(torch.get_num_threads())
"""


@pytest.mark.parametrize("options", [{"NUMBA_NUM_THREADS": "5"}, {"NUMBA_DISABLE_JIT": "1"}])
def test_the_number_of_threads_stays_what_it_was(options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in options.items():
        monkeypatch.setenv(name, value)
    with python("-c", COUNTED) as process:
        out, errors = process.communicate(timeout=120)
    assert out == "2\n", errors


FORKED = """
import os, torch
from cvpo.compiled import loops
from cvpo.networks import StackedMLP
torch.set_num_threads(2)
net, shared, rows = StackedMLP(2, 7, (16, 16), 1), torch.randn(1, 9, 5), torch.randn(1, 9, 4, 2)
with torch.no_grad():
    here = net.particles(shared, rows)
    child = os.fork()
    if child == 0:
        with loops("cvpo.particle_loops").by(2) as (first, *_):
            alone = first is loops("cvpo.particle_loops").first
        torch.set_num_threads(1)
        os._exit(0 if alone and torch.allclose(net.particles(shared, rows), here) else 3)
print("ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_does_without_the_threads_of_its_parent() -> None:
    with python("-c", FORKED) as process:
        out, errors = process.communicate(timeout=120)
    assert out == "ended with 0\n", errors


def test_where_threads_cannot_be_shared_loops_have_one(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    compiled = loops("cvpo.particle_loops")
    expected, plain = both(network(), *given(2))
    monkeypatch.setattr("cvpo.compiled._safe", lambda: False)
    with compiled.by(2) as (first, *_):
        assert first is compiled.first
    assert torch.equal(both(network(), *given(2))[0], expected)
    monkeypatch.setattr(torch, "get_num_threads", lambda: particles.ALONE + 1)
    assert torch.equal(both(network(), *given(2))[0], plain)
