"""What Safety-Gymnasium 1.0.0 needs on current Python and MuJoCo; nothing global stays changed."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from cvpo.envs.camera import Camera
from cvpo.errors import EnvError

_LOCK = threading.RLock()
_PREDEFINED = 'collision="predefined"'


@contextlib.contextmanager
def array_defaults(package: str) -> Iterator[None]:
    """Inside the block, dataclasses of ``package`` may have NumPy arrays as field defaults.

    Python 3.11 refuses unhashable defaults, and Safety-Gymnasium's dataclasses have them: they become default
    factories that copy the array. Classes of other packages, also in other threads, are made as ever, and afterwards
    ``dataclasses.dataclass`` is the original again.
    """
    with _LOCK:
        original = dataclasses.dataclass

        def dataclass(cls: type | None = None, /, **options: Any) -> Any:
            def make(cls: type) -> type:
                if cls.__module__.partition(".")[0] == package:
                    for name in cls.__dict__.get("__annotations__", {}):
                        default = cls.__dict__.get(name)
                        if isinstance(default, np.ndarray):
                            setattr(cls, name, dataclasses.field(default_factory=default.copy))
                return original(cls, **options)

            return make if cls is None else make(cls)

        dataclasses.dataclass = dataclass  # type: ignore[assignment]
        try:
            yield
        finally:
            dataclasses.dataclass = original


@contextlib.contextmanager
def predefined_collisions() -> Iterator[None]:
    """Inside the block, Gymnasium's MuJoCo environments load models that ask for predefined collisions only.

    MuJoCo 3 no longer knows that attribute, which the swimmer's model has; since that model names no pair of bodies,
    nothing collides, which MuJoCo 3 is told in its own way.
    """
    from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

    with _LOCK:
        original = MujocoEnv._initialize_simulation

        def load(env: Any) -> Any:
            text = Path(env.fullpath).read_text()
            if _PREDEFINED not in text:
                return original(env)
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "model.xml"
                copy.write_text(text.replace(_PREDEFINED, ""))
                env.fullpath = str(copy)
                model, data = original(env)
            model.geom_contype[:] = model.geom_conaffinity[:] = 0
            return model, data

        MujocoEnv._initialize_simulation = load  # type: ignore[method-assign]
        try:
            yield
        finally:
            MujocoEnv._initialize_simulation = original  # type: ignore[method-assign]


@contextlib.contextmanager
def without_sky() -> Iterator[None]:
    """Inside the block, Safety-Gymnasium's navigation tasks build their models without the pictures of the sky.

    A model is built anew at every reset, and its six pictures are decoded each time, which takes longer than all the
    steps of a short episode (benchmarks/results/environments.jsonl). Nothing but drawing reads them.
    """
    from safety_gymnasium import world

    def unparse(xml: Any, *args: Any, **kwargs: Any) -> str:
        asset = xml["mujoco"]["asset"]
        asset["texture"] = [texture for texture in asset["texture"] if texture.get("@type") != "skybox"]
        return original.unparse(xml, *args, **kwargs)

    with _LOCK:
        original = world.xmltodict
        world.xmltodict = types.SimpleNamespace(parse=original.parse, unparse=unparse)
        try:
            yield
        finally:
            world.xmltodict = original


class SafetyGymnasiumTask(gymnasium.Wrapper):
    """A Safety-Gymnasium task with seeded resets, any horizon, and pictures from current MuJoCo; no Vision tasks.

    ``horizon`` also replaces the step limit that navigation tasks count for themselves. Their layout is sampled at a
    reset, which fails for some seeds: the next of a fixed sequence is taken then. Without a ``render_mode`` there is no
    sky; see :func:`without_sky`.
    """

    attempts = 20

    def __init__(self, env: gymnasium.Env, horizon: int | None = None) -> None:
        super().__init__(env)
        task: Any = getattr(env.unwrapped, "task", None)
        if getattr(task, "observe_vision", False):
            raise EnvError("image observations are not supported: the package draws them through an older MuJoCo")
        self._fixed_layout = task is not None and not task.mechanism_conf.randomize_layout
        if horizon is not None and hasattr(task, "num_steps"):
            task.num_steps = horizon
        self._camera: Camera | None = None
        drawn = task is None or env.render_mode is not None
        self._building: Any = contextlib.nullcontext if drawn else without_sky

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        with self._building():
            return self._reset(seed, options)

    def _reset(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        if seed is None or self._fixed_layout:
            return self.env.reset(options=options)
        for candidate in _seeds(seed, self.attempts):
            try:
                return self.env.reset(seed=candidate, options=options)
            except Exception as error:  # noqa: BLE001 - told apart by name: the class cannot be imported without MuJoCo
                if type(error).__name__ != "ResamplingError":
                    raise
        raise EnvError(f"no layout was found in {self.attempts} attempts for seed {seed}")

    def step(self, action: Any) -> Any:
        try:
            return self.env.step(action)
        except UnboundLocalError as error:
            # Its step method reads the cost even where MuJoCo gave up and there is none.
            raise EnvError("the MuJoCo simulation became unstable") from error

    def render(self) -> np.ndarray:  # type: ignore[override]
        owner: Any = getattr(self.unwrapped, "task", self.unwrapped)
        if self._camera is None or self._camera.model is not owner.model:
            if self._camera is not None:
                self._camera.close()
            self._camera = Camera(owner.model)
        return self._camera.picture(owner.data)

    def close(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None
        self.env.close()


def _seeds(seed: int, count: int) -> Iterator[int]:
    yield seed
    for word in np.random.SeedSequence(seed).generate_state(count - 1):
        yield int(word)
