"""The configuration of a run: flat options, the same in Python, in ``config.json`` and on the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cvpo.assembly import FAMILIES
from cvpo.config import AgentConfig
from cvpo.envs.adapter import check_cost_keys
from cvpo.errors import ConfigError, suggest
from cvpo.presets import preset
from cvpo.train import Schedule
from cvpo.validators import device_of, flag, number

#: The built-in task: pure NumPy, no simulator needed.
DEFAULT_TASK = "cvpo/Sprint-v0"

SCHEDULE_OPTIONS = tuple(field.name for field in attrs.fields(Schedule))
#: The horizon is an option of the run: the environment truncates there and the agent is told.
AGENT_OPTIONS = tuple(field.name for field in attrs.fields(AgentConfig) if field.name != "horizon")


def _parts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Names of parts become instances, so that a wrong name or option is an error here; the rest stays as it is."""
    for name in options:
        if name not in AGENT_OPTIONS:
            raise ConfigError(f"there is no option {name!r}; {suggest(name, AGENT_OPTIONS)}")
    return {
        name: FAMILIES[name].resolve(_tuples(value)) if name in FAMILIES and value is not None else _tuples(value)
        for name, value in options.items()
        if not (name in FAMILIES and value is None)
    }


def _device(instance: Any, attribute: attrs.Attribute[Any], value: str) -> None:
    device_of(value)


def _env(instance: Any, attribute: attrs.Attribute[Any], value: dict[str, Any]) -> None:
    """The constructor's own keywords only: what the run sets has options of its own."""
    for name in ("task", "num_envs", "seed", "workers", "cost_keys", "horizon"):
        if name in value:
            raise ConfigError(f"env has {name!r}, which is an option of the run itself; give {name} instead")


def _keys(value: Any) -> tuple[str, ...] | None:
    return None if value is None else check_cost_keys(value)


def _keywords(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"env is {value!r}; allowed: a dict of keywords of the task's constructor")
    return dict(value)


@attrs.frozen(kw_only=True)
class RunConfig:
    """What a run computes and how often it says so. The same configuration gives the same run.

    Attributes:
        task: Gymnasium id of the task ("module:Id" imports the module first)
        env: keywords of the task's constructor
        num_envs: copies of the environment that are stepped together
        workers: processes that the copies run in (0: in this one)
        horizon: steps after which an episode is truncated (None: the task's own)
        cost_keys: names of the costs in info (None: the task's own; nothing where there is no limit)
        steps: steps of the environments in total, all copies together
        seed: of networks, sampling, exploration and environments
        threads: threads of torch; a resumed run is exact with the same number only
        device: where the networks are: cpu, cuda
        eval_every: steps between evaluations (0: one, at the end)
        eval_episodes: episodes of an evaluation, once with the policy's mode and once with samples of it
        eval_envs: copies of the environment for evaluation, apart from training's
        log_every: steps between rows of metrics
        checkpoint_every: steps between checkpoints
        keep_checkpoints: how many of the newest checkpoints stay
        tensorboard: write TensorBoard events too
        schedule: how collection and learning alternate
        agent: keywords of :func:`cvpo.make_agent`, parts as names, options or instances
    """

    task: str = attrs.field(default=DEFAULT_TASK, validator=attrs.validators.instance_of(str))
    env: dict[str, Any] = attrs.field(factory=dict, converter=_keywords, validator=_env)
    num_envs: int = attrs.field(default=1, validator=number(ge=1, integer=True))
    workers: int = attrs.field(default=0, validator=number(ge=0, integer=True))
    horizon: int | None = attrs.field(default=None, validator=number(ge=1, integer=True, optional=True))
    cost_keys: tuple[str, ...] | None = attrs.field(default=None, converter=_keys)

    steps: int = attrs.field(default=20_000, validator=number(ge=1, integer=True))
    seed: int = attrs.field(default=0, validator=number(ge=0, integer=True))
    threads: int = attrs.field(default=1, validator=number(ge=1, integer=True))
    device: str = attrs.field(default="cpu", validator=_device)
    schedule: Schedule = attrs.field(factory=Schedule)

    eval_every: int = attrs.field(default=5_000, validator=number(ge=0, integer=True))
    eval_episodes: int = attrs.field(default=10, validator=number(ge=1, integer=True))
    eval_envs: int = attrs.field(default=5, validator=number(ge=1, integer=True))

    log_every: int = attrs.field(default=1_000, validator=number(ge=1, integer=True))
    checkpoint_every: int = attrs.field(default=10_000, validator=number(ge=1, integer=True))
    keep_checkpoints: int = attrs.field(default=3, validator=number(ge=1, integer=True))
    tensorboard: bool = attrs.field(default=True, validator=flag)

    agent: dict[str, Any] = attrs.field(factory=dict, converter=_parts)

    def plain(self) -> dict[str, Any]:
        """Flat options in plain values: ``configure(**config.plain())`` is an equal configuration."""
        run = {name: getattr(self, name) for name in RUN_OPTIONS}
        agent = {
            name: FAMILIES[name].describe(value) if name in FAMILIES else value for name, value in self.agent.items()
        }
        return {**run, **attrs.asdict(self.schedule), **agent}


#: Options of the run itself; the other two groups hold the rest.
RUN_OPTIONS = tuple(field.name for field in attrs.fields(RunConfig) if field.name not in ("schedule", "agent"))
ALL_OPTIONS = (*RUN_OPTIONS, *SCHEDULE_OPTIONS, *AGENT_OPTIONS)


def configure(**options: Any) -> RunConfig:
    """The configuration of a run: flat ``options`` over the task's preset over the defaults.

    Raises ConfigError for an option that does not exist or a value that is not allowed.
    """
    return from_options({**preset(options.get("task", DEFAULT_TASK)), **options})


def from_options(options: Mapping[str, Any]) -> RunConfig:
    """A configuration from flat options. Raises ConfigError for an unknown option or a value that is not allowed."""
    check_names(options)

    def group(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: options[name] for name in names if name in options}

    try:
        return RunConfig(**group(RUN_OPTIONS), schedule=Schedule(**group(SCHEDULE_OPTIONS)), agent=group(AGENT_OPTIONS))
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the configuration cannot be used: {error}") from error


def check_names(options: Mapping[str, Any]) -> None:
    """Raises ConfigError for a name that is no option, with the one that may be meant."""
    for name in options:
        if name not in ALL_OPTIONS:
            raise ConfigError(f"there is no option {name!r}; {suggest(name, ALL_OPTIONS)}")


def read_options(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Flat options from a JSON file, such as a run's ``config.json``. Raises ConfigError where it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            options = json.load(file)
    except OSError as error:
        raise ConfigError(f"configuration {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"configuration {path} is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"configuration {path} holds a {type(options).__name__}; allowed: an object of options")
    return options


def to_json(options: Mapping[str, Any]) -> str:
    """JSON text of flat options. Raises ConfigError for a value that a file cannot hold, naming its option."""
    for name, value in options.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"option {name} cannot be written to config.json: {error}; allowed: numbers, strings, lists, dicts"
            ) from error
        for key in _other_keys(value):
            raise ConfigError(
                f"option {name} cannot be written to config.json: it has a dict with the key {key!r}, which would come "
                "back as a string; allowed: strings as keys"
            )
    return json.dumps(options, indent=2) + "\n"


def _other_keys(value: Any) -> Iterator[Any]:
    """Keys of dicts in ``value`` that are no strings."""
    if isinstance(value, dict):
        yield from (key for key in value if not isinstance(key, str))
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _other_keys(item)


def _tuples(value: Any) -> Any:
    """JSON has lists only; frozen components hold tuples."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
