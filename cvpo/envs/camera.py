"""Pictures of a MuJoCo model through the current bindings; needs OpenGL, no window."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any

import numpy as np

from cvpo.errors import EnvError


class Camera:
    """An offscreen camera for one MuJoCo ``model``: the model's own overview camera where it has one.

    Gymnasium 0.29 and Safety-Gymnasium draw through attributes that MuJoCo 3 no longer has. The OpenGL backend is the
    one that ``MUJOCO_GL`` names; without it and without a display, EGL. Raises EnvError where none can be opened.
    """

    names = ("fixedfar", "track")

    def __init__(self, model: Any, width: int = 480, height: int = 360) -> None:
        import mujoco

        self.model = model
        self._mujoco = mujoco
        self._context: Any = None
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        # GLFW warns of the cause, and what fails later is only its consequence.
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                self._context = _context_class()(width, height)
                self._context.make_current()
                self._gpu = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
                mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._gpu)
            except Exception as error:  # noqa: BLE001 - each OpenGL backend fails in its own way
                self.close()
                cause = warned[0].message if warned else error
                raise EnvError(
                    f"no picture can be drawn: OpenGL does not start ({cause}); set MUJOCO_GL to egl, osmesa or glfw, "
                    "whichever is installed"
                ) from error
        self._area = mujoco.MjrRect(0, 0, width, height)
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 1
        self._view = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, self._view)
        for name in self.names:
            number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA.value, name)
            if number >= 0:
                self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
                self._view.fixedcamid = number
                break

    def picture(self, data: Any) -> np.ndarray:
        """RGB [height,width,3] uint8 of the state ``data``."""
        mujoco = self._mujoco
        self._context.make_current()
        every = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self.model, data, self._options, None, self._view, every, self._scene)
        mujoco.mjr_render(self._area, self._scene, self._gpu)
        picture = np.empty((self._area.height, self._area.width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(picture, None, self._area, self._gpu)
        return picture[::-1]

    def close(self) -> None:
        """Release the OpenGL context; may be repeated."""
        if self._context is not None:
            self._context.free()
            self._context = None


def _context_class() -> Any:
    headless = sys.platform == "linux" and not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY")
    if headless and not os.environ.get("MUJOCO_GL"):
        return importlib.import_module("mujoco.egl").GLContext
    return importlib.import_module("mujoco.gl_context").GLContext
