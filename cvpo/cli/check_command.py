"""``cvpo check``."""

from __future__ import annotations

from typing import Annotated, Any

import tyro

from cvpo.assembly import FAMILIES
from cvpo.cli.fields import literal
from cvpo.errors import ConfigError


def main(argv: list[str]) -> int:
    """Run the property tests of one component's family on it."""
    return tyro.cli(_check, args=argv, prog="cvpo check")


def _check(
    family: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help="family: estep, mstep, policy, critic or buffer")],
    component: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help='name, or "package.module:Class"')],
    options: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(help="its options, as KEY=VALUE")] = (),
    examples: Annotated[int | None, tyro.conf.arg(help="problems to draw for each property, 100 by default")] = None,
) -> int:
    """Check a component against the properties of its family.

    Prints each property that holds; at the first that does not, the example that breaks it, and exits with status 1.
    """
    # Imported late: the property tests bring hypothesis with them.
    from cvpo.testing import contract_of, run_checks

    contract_of(family)
    keywords: dict[str, Any] = {}
    for option in options:
        name, joined, value = option.partition("=")
        if not joined:
            raise ConfigError(f"option {option!r} has no value; allowed: KEY=VALUE")
        keywords[name] = literal(value)
    if examples is not None and examples < 1:
        raise ConfigError(f"examples is {examples}; allowed: an integer >= 1")
    made = FAMILIES[family].create(component, **keywords)
    for check in run_checks(family, made, **({} if examples is None else {"examples": examples})):
        if check.error is not None:
            print(f"FAILED  {check.name}\n\n{check.error}")
            return 1
        print(f"passed  {check.name}")
    return 0
