"""Bullet-Safety-Gym tasks made to depend on the reset seed and the actions alone."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gymnasium
import numpy as np
from bullet_safety_gym.envs import bases

from cvpo.envs.shield import generators_kept, plain_console


class BulletTask(gymnasium.Wrapper):
    """A Bullet-Safety-Gym task whose episodes are determined by the reset seed.

    The package ignores the seed, draws from the global generators of ``random`` and ``numpy.random``, moves obstacles
    by the clock on the wall, and restores a saved simulator state that leaves out the motors and, for some tasks, more.
    Here each environment has generators of its own, which are the global ones only while it runs, and obstacles move
    by simulated time; before a restore the motors are set to rest, as they are in the saved state; and the tasks for
    which that is not enough (``Reach``, and the drone) get a new simulation at every reset, which takes 0.2 to 0.5 s.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._core = cast(Any, env.unwrapped)
        settings = self._core.input_parameters
        self._rebuild = settings["task"] == "ReachGoalTask" or settings["agent"] == "Drone"
        self._rest = np.zeros(env.action_space.shape or (), dtype=np.float32)
        self._generators: tuple[Any, Any] = (None, None)
        self._clock = SimpleNamespace(time=lambda: self._core.iteration * self._core.dt)
        # Obstacles are placed when the simulation is built and the state is saved by the first reset, so neither may
        # depend on what came before.
        self._build(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None and self._rebuild:
            self._build(seed)
        else:
            self._core.agent.apply_action(self._rest)
            if seed is not None:
                self._generators = _generators(seed)
        with self._own_world():
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        with self._own_world():
            return self.env.step(action)

    def render(self) -> np.ndarray:  # type: ignore[override]
        return np.asarray(self._core.render(mode="rgb_array"), dtype=np.uint8)

    def _build(self, seed: int) -> None:
        core = self._core
        self._generators = _generators(seed)
        with self._own_world(), plain_console():
            core.close()
            core.bc = core._setup_client_and_physics()
            core.bullet_client_id = core.bc._client
            core.stored_state_id = -1
            core.iteration = 0
            core._setup_simulation()
            if not self._rebuild:
                core.reset()

    @contextlib.contextmanager
    def _own_world(self) -> Iterator[None]:
        with generators_kept():
            random.setstate(self._generators[0])
            np.random.set_state(self._generators[1])
            clock, bases.time = bases.time, self._clock
            try:
                yield
            finally:
                bases.time = clock
                self._generators = random.getstate(), np.random.get_state()


def _generators(seed: int) -> tuple[Any, Any]:
    """States of Python's and NumPy's global generators, seeded."""
    return random.Random(seed).getstate(), np.random.RandomState(seed % 2**32).get_state()
