"""Markdown for the reports."""

from __future__ import annotations

from collections.abc import Iterable


def table(heads: list[str], lines: Iterable[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *lines])
