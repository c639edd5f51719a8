"""Members of a population inside stacked tensors: views of one member, stacks of several, and their learners' states.

A stack of tensors [*shape] is [P,*shape], or [P·shape[0],...] where the first axis is itself a stack of networks.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Size, Tensor, nn

from cvpo.errors import CheckpointError, ConfigError
from cvpo.estep import DualSolution
from cvpo.learner import Learner


def part(stacked: Tensor, shape: Size, member: int) -> Tensor:
    """The tensor [*shape] of one member, as a view."""
    if stacked.ndim > len(shape):
        return stacked[member]
    return stacked[member * shape[0] : (member + 1) * shape[0]]


def join(parts: Sequence[Tensor], ndim: int) -> Tensor:
    """The stack, of ``ndim`` axes, of which these are the :func:`part` s."""
    return torch.stack(tuple(parts)) if ndim > parts[0].ndim else torch.cat(tuple(parts))


def adopt(learner: Learner, members: Sequence[Learner]) -> None:
    """Put the members' networks into the stacked ones, and make the members' own parameters views of those.

    From then on they are the same memory: what is learned in the stack, every member acts and predicts by. Raises
    ConfigError where a component builds no population.
    """
    for name in learner.networks:
        adopt_network(_component(name), getattr(learner, name), [getattr(member, name) for member in members])


def adopt_network(what: str, whole: nn.Module, members: Sequence[nn.Module]) -> None:
    """:func:`adopt` for one network, which ``what`` built."""
    stacked = dict(whole.named_parameters())
    own = [dict(member.named_parameters()) for member in members]
    if set(whole.state_dict()) != set(stacked):
        raise ConfigError(f"{what} has buffers in its state; allowed in a population: parameters only")
    for key, parameter in stacked.items():
        shape = own[0][key].shape if key in own[0] else Size()
        allowed = [(len(members), *shape), (len(members) * shape[0], *shape[1:]) if shape else ()]
        if key not in own[0] or tuple(parameter.shape) not in allowed:
            raise ConfigError(
                f"{what} builds no population: its parameter {key} is {tuple(parameter.shape)} for "
                f"{len(members)} members; allowed: {allowed[0]}"
            )
        with torch.no_grad():
            parameter.copy_(join([each[key] for each in own], parameter.ndim))
        for index, each in enumerate(own):
            each[key].data = part(parameter.data, shape, index)


def split_state(learner: Learner, member: Learner, index: int) -> dict[str, Any]:
    """The state of one member, a copy, as :meth:`~cvpo.learner.Learner.state_dict` of a single learner gives it."""
    critic, policy = (
        [parameter.shape for parameter in getattr(member, name).parameters()] for name in ("critic", "policy")
    )
    solution = learner.solution
    if solution is not None:
        fields = attrs.asdict(solution, recurse=False)
        private = _map([fields.pop("state")], lambda values: values[0][index : index + 1])
        solution = {name: value[index] for name, value in fields.items()} | {"state": private}
    state = {
        **{name: getattr(member, name).state_dict() for name in learner.networks},
        "critic_optimiser": _split(learner.critic_optimiser.state_dict(), None, critic, index),
        "fit": _split(learner.fit.state_dict(), member.fit.state_dict(), policy, index),
        "solution": solution,
        "updates": learner.updates,
    }
    return copy.deepcopy(state)


def join_states(learner: Learner, members: Sequence[Learner], states: Sequence[dict[str, Any]]) -> None:
    """Take over the states of single learners, one for each member. Raises CheckpointError where these are of agents
    with different numbers of updates: their optimisers would count differently."""
    updates = sorted({int(state["updates"]) for state in states})
    if len(updates) > 1:
        raise CheckpointError(f"members have made {updates} updates; allowed: the same number for all")
    for member, state in zip(members, states, strict=True):
        for name in learner.networks:
            getattr(member, name).load_state_dict(state[name])
    critic = [parameter.ndim for parameter in learner.critic.parameters()]
    policy = [parameter.ndim for parameter in learner.policy.parameters()]
    learner.critic_optimiser.load_state_dict(_join([state["critic_optimiser"] for state in states], None, critic))
    learner.fit.load_state_dict(_join([state["fit"] for state in states], learner.fit.state_dict(), policy))
    learner.updates = updates[0]
    learner.scale_rates(1.0)
    solutions = [state["solution"] for state in states]
    if solutions[0] is None:
        learner.solution = None
        return
    private = _map([solution["state"] for solution in solutions], torch.cat)
    public = {name: torch.stack([each[name] for each in solutions]) for name in solutions[0] if name != "state"}
    learner.solution = DualSolution(**public, state=private).to(next(learner.policy.parameters()).device)


def _component(network: str) -> str:
    return "critic" if "critic" in network else "policy"


def _split(value: Any, single: Any, shapes: list[Size], index: int) -> Any:
    """One member's part of a tree: tensors are as those in ``single``, moments of an optimiser as its parameters."""
    if isinstance(value, Tensor):
        return part(value, single.shape, index)
    if not isinstance(value, dict):
        return value
    if "param_groups" not in value:
        return {key: _split(each, single[key], shapes, index) for key, each in value.items()}
    state = {
        at: {key: part(each, shapes[at], index) if each.ndim else each for key, each in moments.items()}
        for at, moments in value["state"].items()
    }
    return {**value, "state": state}


def _join(values: list[Any], stacked: Any, ndims: list[int]) -> Any:
    """The inverse of :func:`_split`: ``stacked`` is a tree of the stack's own tensors."""
    first = values[0]
    if isinstance(first, Tensor):
        return join(values, stacked.ndim)
    if not isinstance(first, dict):
        return first
    if "param_groups" not in first:
        return {key: _join([value[key] for value in values], stacked[key], ndims) for key in first}
    state = {
        at: {
            key: join([value["state"][at][key] for value in values], ndims[at]) if each.ndim else each.clone()
            for key, each in moments.items()
        }
        for at, moments in first["state"].items()
    }
    return {**first, "state": state}


def _map(values: list[Any], join: Any) -> Any:
    """A solver's own state: its tensors have one row for each problem, a single problem too; numbers are shared."""
    first = values[0]
    if isinstance(first, Tensor):
        return join(values)
    if isinstance(first, (list, tuple)):
        parts = [_map(list(each), join) for each in zip(*values, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first
