"""Bullet-Safety-Gym tasks made to depend on the reset seed and the actions alone."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import gymnasium
import numpy as np
from bullet_safety_gym.envs import agents, bases, obstacles, tasks, worlds

from cvpo.envs.shield import plain_console


class _Numpy(ModuleType):
    """NumPy as the package sees it: ``random`` can be another generator than the global one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


_NUMPY = _Numpy("numpy")
vars(_NUMPY).update(vars(np))
for _module in (agents, bases, tasks, worlds):
    cast(Any, _module).np = _NUMPY


class BulletTask(gymnasium.Wrapper):
    """A Bullet-Safety-Gym task whose episodes are determined by the reset seed.

    The package ignores the seed, draws from the global generators of ``random`` and ``numpy.random``, moves obstacles
    by the clock on the wall, and restores a saved simulator state that leaves out the motors and, for some tasks, more.
    Here each environment has generators of its own, which the package's modules find in place of the global ones while
    it runs (the state of a global one is 624 words to copy, out and in, at every step), and obstacles move by simulated
    time; before a restore the motors are set to rest, as they are in the saved state; and the tasks for
    which that is not enough (``Reach``, and the drone) get a new simulation at every reset, which takes 0.2 to 0.5 s.
    An environment that is not ``owned`` keeps its simulation, and with it what those tasks remember, and where
    obstacles were placed before.
    """

    def __init__(self, env: gymnasium.Env, owned: bool = True) -> None:
        super().__init__(env)
        self._core = cast(Any, env.unwrapped)
        settings = self._core.input_parameters
        self._rebuild = owned and (settings["task"] == "ReachGoalTask" or settings["agent"] == "Drone")
        self._rest = np.zeros(env.action_space.shape or (), dtype=np.float32)
        self._clock = SimpleNamespace(time=lambda: self._core.iteration * self._core.dt)
        # Obstacles are placed when the simulation is built and the state is saved by the first reset, so neither may
        # depend on what came before.
        if owned:
            self._build(0)
        else:
            self._seed(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None and self._rebuild:
            self._build(seed)
        else:
            self._core.agent.apply_action(self._rest)
            if seed is not None:
                self._seed(seed)
        with self._own_world():
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        with self._own_world():
            return self.env.step(action)

    def render(self) -> np.ndarray:  # type: ignore[override]
        return np.asarray(self._core.render(mode="rgb_array"), dtype=np.uint8)

    def _build(self, seed: int) -> None:
        core = self._core
        self._seed(seed)
        with self._own_world(), plain_console():
            core.close()
            core.bc = core._setup_client_and_physics()
            core.bullet_client_id = core.bc._client
            core.stored_state_id = -1
            core.iteration = 0
            core._setup_simulation()
            if not self._rebuild:
                core.reset()

    def _seed(self, seed: int) -> None:
        self._world = (
            (bases, "time", self._clock),
            (obstacles, "random", random.Random(seed)),
            (_NUMPY, "random", np.random.RandomState(seed % 2**32)),
        )

    @contextlib.contextmanager
    def _own_world(self) -> Iterator[None]:
        outside = [(module, name, getattr(module, name)) for module, name, _ in self._world]
        for module, name, own in self._world:
            setattr(module, name, own)
        try:
            yield
        finally:
            for module, name, theirs in outside:
                setattr(module, name, theirs)
