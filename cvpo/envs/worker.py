"""The other end of :class:`~cvpo.envs.workers.Workers`: one process, some environments, calls answered in order."""

from __future__ import annotations

import contextlib
import signal
import traceback
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from cvpo.envs.serial import Serial
from cvpo.envs.vector import Step
from cvpo.errors import CvpoError


def serve(pipe: Connection, order: bytes) -> None:
    """The worker: build the environments, then answer calls until told to stop or the other side is gone."""
    # Ctrl-C reaches the whole process group; the main process decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    env: Serial | None = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError), pipe:
        try:
            sources, cost_keys, seed, first = cloudpickle.loads(order)
            env = Serial(sources, cost_keys, seed, first)
            pipe.send(("result", _about(env)))
            while (message := pipe.recv()) is not None:
                method, arguments = message
                value = getattr(env, method)(*arguments)
                if isinstance(value, Step):
                    value = (value.obs, value.next_obs, value.reward, value.cost, value.terminated, value.truncated)
                pipe.send(("result", value))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except CvpoError as error:
            pipe.send(("error", error))
        except Exception as error:  # noqa: BLE001 - whatever an environment raises is reported
            pipe.send(("error", (f"{type(error).__name__}: {error}", traceback.format_exc())))
    if env is not None:
        env.close()


def _about(env: Serial) -> dict[str, Any]:
    names = ("task", "horizon", "observation_space", "action_space", "obs_size")
    return {name: getattr(env, name) for name in names}
