"""Tasks with something wrong, and one that has no preset, registered with Gymnasium as a user's module would."""

from __future__ import annotations

import gymnasium
from gymnasium.spaces import MultiDiscrete

HELPERS = "tests.envs.helpers"

for _what in ("observation", "reward", "cost"):
    gymnasium.register(
        f"Nan{_what.capitalize()}-v0",
        entry_point=f"{HELPERS}:Faulty",
        kwargs={"what": _what, "value": float("nan"), "at": 150},
        max_episode_steps=400,
    )
gymnasium.register("Costless-v0", entry_point=f"{HELPERS}:Toy", kwargs={"info": {"speed": 1.0}}, max_episode_steps=400)
gymnasium.register("Costly-v0", entry_point=f"{HELPERS}:Toy", kwargs={"info": {"cost": 1.0}}, max_episode_steps=100)
gymnasium.register("Endless-v0", entry_point=f"{HELPERS}:Toy")
gymnasium.register(
    "Odd-v0", entry_point=f"{HELPERS}:Toy", kwargs={"action_space": MultiDiscrete([2, 3])}, max_episode_steps=400
)
gymnasium.register("Exits-v0", entry_point=f"{HELPERS}:Dying", kwargs={"how": "exit"}, max_episode_steps=400)
gymnasium.register("Raises-v0", entry_point=f"{HELPERS}:Dying", kwargs={"how": "raise"}, max_episode_steps=400)
