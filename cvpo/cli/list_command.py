"""``cvpo list``."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from cvpo.assembly import DEFAULTS, FAMILIES
from cvpo.errors import ConfigError, CvpoError, suggest


def main(argv: list[str]) -> int:
    """Print every component, family by family."""
    return tyro.cli(_list, args=argv, prog="cvpo list")


def _list(
    families: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(help="families to list (none: all)")] = (),
) -> int:
    """List the components of each family: name and one line, the default marked with *.

    Components of installed plug-ins are among them; one that cannot be imported is a warning.
    """
    for family in families:
        if family not in FAMILIES:
            raise ConfigError(f"there is no family {family!r}; {suggest(family, FAMILIES)}")
    table = Table(box=None, pad_edge=False)
    table.add_column("family")
    table.add_column("component")
    table.add_column("")
    for family in families or FAMILIES:
        registry = FAMILIES[family]
        shown = family
        for name in registry.names():
            try:
                with warnings.catch_warnings():
                    # A plug-in that does not load warns and raises the same words; once is enough.
                    warnings.simplefilter("ignore")
                    summary = registry.summary(name)
            except CvpoError as error:
                print(f"cvpo: warning: {error}", file=sys.stderr)
                continue
            table.add_row(shown, name + ("*" if name == DEFAULTS[family] else ""), summary)
            shown = ""
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
    return 0
