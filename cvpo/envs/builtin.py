"""Registers the built-in tasks with Gymnasium; also the entry point that Gymnasium calls when it is imported."""

from __future__ import annotations

from typing import Any

HORIZON = 100

# Task: constructor options. The documented cost limits, per episode, are those of cvpo.envs.sprint.COST_LIMITS.
TASKS: dict[str, dict[str, Any]] = {
    "Sprint-v0": {},
    "SprintTwoCosts-v0": {"two_costs": True},
    "SprintDiscrete-v0": {"discrete": True},
}


def register() -> None:
    """Register ``cvpo/Sprint-v0`` and its variants, once."""
    # Here, not above: importing Gymnasium calls this, which must be there by then.
    from gymnasium.envs import registration

    for name, options in TASKS.items():
        if f"cvpo/{name}" not in registration.registry:
            registration.register(
                # The namespace is given by Gymnasium where it calls this as a plug-in.
                id=name if registration.current_namespace == "cvpo" else f"cvpo/{name}",
                entry_point="cvpo.envs.sprint:Sprint",
                max_episode_steps=HORIZON,
                kwargs=options,
            )
