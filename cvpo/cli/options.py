"""Options of ``cvpo train``: one flag for every field of the run, of the agent, and of each component that is chosen.

Two passes. The first reads what decides which flags there are: the task (its preset), a configuration file, and the
names of components. The second is parsed by tyro into a record that is built for exactly these components.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import tyro

from cvpo.assembly import DEFAULTS, FAMILIES
from cvpo.cli.fields import default_of, description_of, flag, literal, option
from cvpo.config import AgentConfig
from cvpo.errors import ConfigError
from cvpo.presets import preset
from cvpo.run.config import AGENT_OPTIONS, RUN_OPTIONS, SCHEDULE_OPTIONS, RunConfig, check_names, read_options
from cvpo.train import Schedule

DESCRIPTION = """Train an agent on a task; configuration, metrics and checkpoints go to a run folder.

Every part of the agent has a flag that chooses it by name (`cvpo list` shows them; "package.module:Class" is taken
too), and the chosen component has flags for its own options: `cvpo train --estep slsqp --help`. Defaults are those for
the task: `cvpo train --task TASK --help`. Keywords of the environment itself are given as --env.KEY VALUE."""

SEEDS_HELP = (
    "train runs with these seeds together, in one batched update; their folders are RUN-SEED (None: one run, "
    "with --seed)"
)
CONFIG_HELP = "JSON file with options, such as the config.json of a run; flags come before it"
#: Flags of their own name: title of the group, the class that holds them and its fields.
SCALARS: dict[str, tuple[type, list[str]]] = {
    "running": (RunConfig, [name for name in RUN_OPTIONS if name != "env"]),
    "schedule": (Schedule, list(SCHEDULE_OPTIONS)),
    "agent": (AgentConfig, [name for name in AGENT_OPTIONS if name not in FAMILIES]),
}


@attrs.frozen
class Choices:
    """What the first pass found: options that the flags start from, parts that were named, and the flags."""

    base: dict[str, Any]
    named: dict[str, str]
    flags: list[str]


def parse(argv: Sequence[str]) -> tuple[dict[str, Any], str | None, tuple[int, ...] | None]:
    """Flat options of a run, its folder, and the seeds to train together (None: not given). Exits with usage on stderr
    where a flag is wrong, and raises ConfigError for a component or an option of it that does not exist."""
    choices = first_pass(argv)
    parts = {family: part_options(family, choices) for family in FAMILIES}
    parsed: Any = tyro.cli(build_record(choices, parts), args=choices.flags, prog="cvpo train")

    options: dict[str, Any] = {"env": choices.base["env"]}
    for title in SCALARS:
        options |= vars(getattr(parsed, title))
    for family, defaults in parts.items():
        values = {"name": defaults["name"], **(vars(getattr(parsed, family)) if hasattr(parsed, family) else {})}
        # What suits a part that nobody chose depends on the action space: it stays open.
        if family in choices.named or family in choices.base or values != defaults:
            options[family] = values
    return options, parsed.run, parsed.seeds


def first_pass(argv: Sequence[str]) -> Choices:
    """Task, configuration file, names of parts and keywords of the environment; the last of equal flags counts."""
    deciding = ("task", "config", *FAMILIES)
    chosen: dict[str, str] = {}
    env: dict[str, Any] = {}
    flags: list[str] = []
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        name, joined, value = token.partition("=")
        name = name.removeprefix("--").replace("-", "_") if name.startswith("--") else ""
        keyword = name.startswith("env.")
        if keyword and not joined:
            if not tokens:
                raise ConfigError(f"{token} needs a value")
            value = tokens.pop(0)
        if keyword:
            env[name.removeprefix("env.").replace("-", "_")] = literal(value)
            continue
        if name in deciding and (joined or tokens):
            chosen[name] = value if joined else tokens[0]
        flags.append(token)
    given = read_options(chosen["config"]) if "config" in chosen else {}
    check_names(given)
    task = chosen.get("task", given.get("task", RunConfig().task))
    if not isinstance(task, str):
        raise ConfigError(f"task is {task!r}; allowed: the Gymnasium id of a task")
    base = {**preset(task), **given, "task": task}
    if not isinstance(base.setdefault("env", {}), dict):
        raise ConfigError(f"env is {base['env']!r}; allowed: an object of keywords")
    base["env"] = {**base["env"], **env}
    if isinstance(base.get("cost_limits"), (int, float)):
        base["cost_limits"] = (base["cost_limits"],)
    return Choices(base, {name: value for name, value in chosen.items() if name in FAMILIES}, flags)


def part_options(family: str, choices: Choices) -> dict[str, Any]:
    """``{"name": ..., **options}`` that the flags of one part start from; options of another component are dropped."""
    registry = FAMILIES[family]
    given = choices.base.get(family, DEFAULTS[family])
    given = {"name": given} if isinstance(given, str) else given
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise ConfigError(f"{family} is {given!r}; allowed: a name, or an object with a name and options")
    name = choices.named.get(family, given["name"])
    if name != given["name"]:
        given = {"name": name}
    cls = registry.get(name)
    if not attrs.has(cls):
        raise ConfigError(f"{registry.family} {name!r} is no attrs class; allowed: a class with @attrs.frozen")
    required = [field for field in attrs.fields(cls) if field.init and field.default is attrs.NOTHING]
    if all(field.alias in given for field in required):
        return {**registry.describe(registry.resolve(given)), "name": name}
    return given


def build_record(choices: Choices, parts: Mapping[str, Mapping[str, Any]]) -> type:
    """The record that tyro fills: where to, scalars of run, schedule and agent, and name and options of each part."""
    unprefixed: Any = tyro.conf.OmitArgPrefixes
    fields: list[Any] = [
        ("config", option(str | None, CONFIG_HELP), None),
        ("run", option(str | None, "the run folder, new or empty (None: runs/TASK/seed-SEED-TIME)"), None),
        ("seeds", option(tuple[int, ...] | None, SEEDS_HELP), None),
    ]
    for family, options in parts.items():
        text = f"{FAMILIES[family].family}: {', '.join(FAMILIES[family].names())}"
        fields.append((f"{family}_name", option(str, text, family), options["name"]))
    for title, (cls, names) in SCALARS.items():
        known = attrs.fields_dict(cls)
        held = [flag(cls, name, choices.base.get(name, default_of(known[name]))) for name in names]
        fields.append((title, unprefixed[_record(title, description_of(cls), held)]))
    for family, options in parts.items():
        cls = FAMILIES[family].get(options["name"])
        held = [
            flag(cls, field.name, options.get(field.alias, default_of(field)), called=field.alias)
            for field in attrs.fields(cls)
            if field.init
        ]
        if held:
            fields.append((family, _record(family, f"{options['name']}: {description_of(cls)}", held)))
    return _record("train", DESCRIPTION, fields)


def _record(name: str, doc: str, fields: list[Any]) -> type:
    record = dataclasses.make_dataclass(name, fields, kw_only=True)
    record.__doc__ = doc
    return record
