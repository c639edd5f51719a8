"""Assembly: names to instances once, at construction; and back to names, for the files a run leaves behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import gymnasium
import numpy as np
from gymnasium import Space, spaces

from cvpo import buffers, critics, estep, mstep, policy
from cvpo.agent import CVPO
from cvpo.config import AgentConfig
from cvpo.envs.given import count_of, horizon_of, share_of
from cvpo.errors import ConfigError, suggest
from cvpo.registry import Registry
from cvpo.vector_agent import VectorAgent

#: Where the names of each part of an agent are looked up, and the part's default.
FAMILIES: dict[str, Registry] = {
    "estep": estep.registry,
    "mstep": mstep.registry,
    "fit": mstep.fits,
    "policy": policy.registry,
    "critic": critics.registry,
    "returns": critics.returns,
    "buffer": buffers.registry,
    "limit": critics.limits,
    "limit_schedule": critics.schedules,
    "states": buffers.states,
}
#: What an instance of each part can do at least: the methods of its protocol.
METHODS: dict[str, tuple[str, ...]] = {
    "estep": ("solve",),
    "mstep": ("project", "kl", "objective"),
    "fit": ("build", "fit"),
    "policy": ("build",),
    "critic": ("build", "evaluate", "loss"),
    "returns": ("targets",),
    "buffer": ("build",),
    "limit": ("threshold",),
    "limit_schedule": ("limits",),
    "states": ("build",),
}
#: And what it must say of itself.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "mstep": ("bounds",),
    "policy": ("discrete",),
    "returns": ("windows",),
    "limit": ("measure",),
}
DEFAULTS: dict[str, str] = {
    "estep": "newton",
    "mstep": "decoupled",
    "fit": "likelihood",
    "policy": "diagonal",
    "critic": "mlp",
    "returns": "td",
    "buffer": "uniform",
    "limit": "policy",
    "limit_schedule": "constant",
    "states": "recent",
}
#: The options of :class:`AgentConfig` with their defaults.
_OPTIONS: dict[str, Any] = {field.name: field.default for field in attrs.fields(AgentConfig)}


def make_agent(
    observation_space: Space[Any],
    action_space: Space[Any],
    *,
    estep: Any = DEFAULTS["estep"],
    mstep: Any = None,
    fit: Any = DEFAULTS["fit"],
    policy: Any = None,
    critic: Any = DEFAULTS["critic"],
    returns: Any = DEFAULTS["returns"],
    buffer: Any = DEFAULTS["buffer"],
    limit: Any = DEFAULTS["limit"],
    limit_schedule: Any = DEFAULTS["limit_schedule"],
    states: Any = DEFAULTS["states"],
    cost_limits: Any = (),
    limit_kind: str = _OPTIONS["limit_kind"],
    gamma: float = _OPTIONS["gamma"],
    horizon: int | None = None,
    env: Any = None,
    num_envs: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    **options: Any,
) -> CVPO:
    """A CVPO agent out of named or given parts.

    Each part is a name (``"newton"``), a name with options (``{"name": "newton", "max_iter": 50}``), a path
    (``"my_package:MySolver"``) or an instance. ``cost_limits`` has one number for each cost (none: plain MPO) in units
    of ``limit_kind``; ``options`` are further fields of :class:`cvpo.AgentConfig`. ``env`` (optional) is what
    :meth:`CVPO.learn` trains on; from it are taken ``horizon``, the episode length in steps, and ``num_envs``, how many
    environments feed the agent (without it 1), where they are not given.
    Raises ConfigError naming the part, field or option that cannot be used, EnvError for an unsupported space.
    """
    given = dict(
        estep=estep,
        mstep=mstep or ("full" if isinstance(action_space, spaces.Discrete) else DEFAULTS["mstep"]),
        fit=fit,
        policy=policy or ("categorical" if isinstance(action_space, spaces.Discrete) else DEFAULTS["policy"]),
        critic=critic,
        returns=returns,
        buffer=buffer,
        limit=limit,
        limit_schedule=limit_schedule,
        states=states,
    )
    parts = {name: FAMILIES[name].resolve(spec) for name, spec in given.items()}
    for name, part in parts.items():
        missing = [method for method in METHODS[name] if not callable(getattr(part, method, None))]
        missing += [each for each in ATTRIBUTES.get(name, ()) if not hasattr(part, each)]
        if missing:
            raise ConfigError(
                f"{name} is {part!r}, which has no {' and no '.join(missing)}; allowed: a name "
                f"({', '.join(FAMILIES[name].names())}), 'module:Class', or an instance of such a class"
            )
    for option in options:
        if option not in _OPTIONS:
            raise ConfigError(f"make_agent has no option {option!r}; {suggest(option, _OPTIONS)}")
    if isinstance(env, (str, gymnasium.vector.VectorEnv)):
        found, task = (
            (repr(env), repr(env)) if isinstance(env, str) else (f"a {type(env).__name__}", "task, num_envs=n")
        )
        raise ConfigError(f"env is {found}; allowed: an environment, such as cvpo.envs.make({task}), or None")
    if horizon is None:
        horizon = horizon_of(env)
    if num_envs is None:
        num_envs = count_of(env)
    config = AgentConfig(
        **parts, cost_limits=cost_limits, limit_kind=limit_kind, gamma=gamma, horizon=horizon, **options
    )
    return CVPO(config, observation_space, action_space, num_envs=num_envs, seed=seed, device=device, env=env)


def make_vector_agent(
    observation_space: Space[Any],
    action_space: Space[Any],
    *,
    seeds: Sequence[int],
    cost_limits: Any = (),
    kl_epsilon: float | Sequence[float] | None = None,
    **given: Any,
) -> VectorAgent:
    """P CVPO agents, one for each of ``seeds``, that are trained in one batched update.

    ``cost_limits`` as for :func:`make_agent`, the same for all; or a sequence of P such sequences, one for each member:
    ``[(5.0,), (10.0,)]``. ``kl_epsilon``: one for all, or P of them. ``num_envs`` environments feed each member: where
    that is not given, a member's share of those of ``env``. Everything else is as for :func:`make_agent`. Raises
    ConfigError as that does, and where there are not P of them.
    """
    cost_limits, kl_epsilon = _listed(cost_limits), _listed(kl_epsilon)
    if "seed" in given:
        raise ConfigError(f"make_vector_agent has no option 'seed', found {given['seed']!r}; allowed: seeds")
    if not isinstance(seeds, (Sequence, np.ndarray)):
        raise ConfigError(f"seeds is {seeds!r}; allowed: a sequence of integers >= 0, one for each member")
    limits = list(cost_limits) if isinstance(cost_limits, Sequence) and _nested(cost_limits) else None
    epsilons = list(kl_epsilon) if isinstance(kl_epsilon, Sequence) else None
    for name, each in (("cost_limits", limits), ("kl_epsilon", epsilons)):
        if each is not None and len(each) != len(seeds):
            raise ConfigError(f"{name} has {len(each)} entries for {len(seeds)} seeds; allowed: one for each")
    if not len(seeds):
        raise ConfigError("seeds is empty; allowed: one for each member, at least one")
    agents = []
    parts = dict(given)
    if parts.get("num_envs") is None:
        parts["num_envs"] = share_of(parts.get("env"), len(seeds))
    for index, seed in enumerate(seeds):
        own = dict(cost_limits=limits[index] if limits is not None else cost_limits, seed=seed)
        if kl_epsilon is not None:
            own["kl_epsilon"] = epsilons[index] if epsilons is not None else kl_epsilon
        agents.append(make_agent(observation_space, action_space, **parts, **own))
        # Instances: components without an equality of their own are then the same ones in every member.
        parts.update({name: getattr(agents[0].config, name) for name in FAMILIES})
    return VectorAgent(agents, env=parts.get("env"))


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _nested(values: Sequence[Any]) -> bool:
    return any(isinstance(value, (Sequence, np.ndarray)) for value in values)


def check_safe(options: Mapping[str, Any]) -> None:
    """Raises ConfigError where ``options`` from a file would make what is no component: see
    :meth:`Registry.check_safe`."""
    for name, registry in FAMILIES.items():
        if options.get(name) is not None:
            registry.check_safe(options[name])


def describe(config: AgentConfig) -> dict[str, Any]:
    """The configuration in plain values; ``make_agent(..., **describe(config))`` makes an equal one."""
    plain: dict[str, Any] = {}
    for field in attrs.fields(AgentConfig):
        value = getattr(config, field.name)
        plain[field.name] = FAMILIES[field.name].describe(value) if field.name in FAMILIES else value
    return plain
