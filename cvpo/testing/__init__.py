"""Property tests as a public kit: strategies that draw the edge cases, and contracts to run on your own components."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from cvpo.errors import ConfigError, DependencyError, suggest

try:
    import hypothesis
except ImportError as error:
    raise DependencyError("property tests need hypothesis: pip install 'cvpo[testing]'") from error

from cvpo.testing.buffer import buffer_checks, check_buffer
from cvpo.testing.critic import check_critic, critic_checks
from cvpo.testing.estep import check_estep_solver, estep_checks
from cvpo.testing.gaussians import categoricals, gaussians, projection_problems
from cvpo.testing.policy import check_policy, policy_checks
from cvpo.testing.problems import dual_problems, edge_cases
from cvpo.testing.projection import check_projection, projection_checks
from cvpo.testing.transitions import transitions

__all__ = [
    "Check",
    "categoricals",
    "check_buffer",
    "check_critic",
    "check_estep_solver",
    "check_policy",
    "check_projection",
    "dual_problems",
    "edge_cases",
    "gaussians",
    "projection_problems",
    "run_checks",
    "transitions",
]

#: Family: the named checks of one component, each a call that raises AssertionError.
CONTRACTS: dict[str, Callable[..., Iterable[tuple[str, Callable[[], None]]]]] = {
    "estep": estep_checks,
    "mstep": projection_checks,
    "policy": policy_checks,
    "critic": critic_checks,
    "buffer": buffer_checks,
}

hypothesis.settings.register_profile("cvpo-ci", max_examples=12, deadline=None)
hypothesis.settings.register_profile("cvpo-nightly", max_examples=1200, deadline=None)


@attrs.frozen
class Check:
    """A property that was checked: ``error`` is None, or what breaks it, with the falsifying example."""

    name: str
    error: str | None

    @property
    def passed(self) -> bool:
        """Whether the property holds."""
        return self.error is None


def contract_of(family: str) -> Callable[..., Iterable[tuple[str, Callable[[], None]]]]:
    """Its entry in :data:`CONTRACTS`. Raises ConfigError for a family that has none."""
    if family not in CONTRACTS:
        raise ConfigError(f"there are no property tests for {family!r}; {suggest(family, CONTRACTS)}")
    return CONTRACTS[family]


def run_checks(family: str, component: Any, **options: Any) -> Iterator[Check]:
    """Check ``component`` against the contract of its family, one property after the other.

    ``options`` go to the contract (``examples=...``). Whatever the component raises breaks the property that met it.
    Raises ConfigError for a family that has no contract.
    """
    contract = contract_of(family)
    try:
        for name, check in contract(component, **options):
            try:
                check()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a component may raise anything
                yield Check(name, _words(error))
            else:
                yield Check(name, None)
    except AssertionError as error:
        yield Check("it has what its contract is about", str(error))


def _words(error: BaseException) -> str:
    """What broke, with the falsifying examples: each of several things that hypothesis found."""
    if isinstance(error, BaseExceptionGroup):
        return "\n\n".join(map(_words, error.exceptions))
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return "\n".join([f"{kind}{error}", *getattr(error, "__notes__", ())])
