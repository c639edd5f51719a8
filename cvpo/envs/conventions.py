"""What each package's environments are wrapped in, so that all follow Gymnasium's convention."""

from __future__ import annotations

import contextlib
from typing import Any

import gymnasium

from cvpo.envs import shield
from cvpo.envs.compat import SafetyGymnasiumTask, predefined_collisions
from cvpo.errors import EnvError


class FiveTuple(gymnasium.Wrapper):
    """The six-tuple (observation, reward, cost, terminated, truncated, info) with the cost moved to ``info["cost"]``;
    the five-tuple passes through, and anything else is an EnvError. Below Gymnasium's TimeLimit, which takes five."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        count = len(result) if isinstance(result, tuple) else 0
        if count not in (5, 6):
            what = f"a {type(result).__name__}" + (f" of {count}" if count else "")
            raise EnvError(
                f"step returned {what}; allowed: observation, reward, terminated, truncated, info, as in Gymnasium, or "
                "with the cost after the reward"
            )
        if count == 6:
            obs, reward, cost, terminated, truncated, info = result  # type: ignore[misc]
            if not isinstance(info, dict):
                raise EnvError(f"step returned info of type {type(info).__name__}; allowed: a dict")
            info["cost"] = cost
            return obs, reward, terminated, truncated, info
        return result


def making(package: str) -> contextlib.AbstractContextManager[None]:
    """What has to hold while an environment of ``package`` is made."""
    if package == "bullet_safety_gym":
        return shield.making()
    return predefined_collisions() if package == "safety_gymnasium" else contextlib.nullcontext()


def adapt(env: gymnasium.Env, horizon: int | None = None, *, owned: bool = True) -> gymnasium.Env:
    """``env`` with what its package needs to be deterministic and drawn; other environments unchanged. What it is made
    of is replaced only where it is ``owned``."""
    package = type(env.unwrapped).__module__.partition(".")[0]
    if package == "safety_gymnasium":
        return SafetyGymnasiumTask(env, horizon)
    if package == "bullet_safety_gym":
        from cvpo.envs.bullet import BulletTask

        return BulletTask(env, owned)
    return env
