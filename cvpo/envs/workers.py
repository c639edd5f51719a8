"""Environments in worker processes: slow steps and resets run side by side, with the results of Serial, bit for bit."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np

from cvpo.envs.source import Source
from cvpo.envs.spaces import ActionDoor
from cvpo.envs.vector import Step, VectorEnv, check_actions, split_state
from cvpo.envs.worker import serve
from cvpo.errors import ConfigError, CvpoError, WorkerError

# Seconds that workers are given to close their environments before they are killed.
PATIENCE = 2.0
_SPAWN = multiprocessing.get_context("spawn")


class Workers(VectorEnv):
    """Environments divided among ``workers`` processes, each a :class:`~cvpo.envs.serial.Serial` of consecutive ones.

    A worker that dies is a WorkerError with the numbers of its environments and its exit code; an error of the
    library arrives as it was raised, any other as a WorkerError with its message and, as a note, its traceback. After
    either, all workers are stopped. Workers end when this process does, however it ends.
    """

    def __init__(self, sources: Sequence[Source], cost_keys: tuple[str, ...], seed: int = 0, workers: int = 1) -> None:
        self.num_envs, self.seed, self.cost_names = len(sources), seed, cost_keys
        if not all(source.owned for source in sources):
            raise ConfigError("environments that exist already cannot move to workers; pass a name or a function")
        self._groups = [group.tolist() for group in np.array_split(np.arange(self.num_envs), workers)]
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self._under_way = False
        try:
            for group in self._groups:
                self._start([sources[n] for n in group], cost_keys, seed, group[0])
            about = self._gather()
        except BaseException:
            self.close()
            raise
        for name, value in about[0].items():
            setattr(self, name, value)
        self.door = ActionDoor(self.action_space)

    def reset(self, seed: int | None = None) -> np.ndarray:
        if seed is not None:
            self.seed = seed
        return np.concatenate(self._call("reset", [(seed,)] * len(self._groups)))

    def step(self, actions: np.ndarray) -> Step:
        self.begin(actions)
        return self.finish()

    def begin(self, actions: np.ndarray) -> None:
        actions = check_actions(actions, self.num_envs, self.action_size)
        self._order("step", [(actions[group[0] : group[-1] + 1],) for group in self._groups])
        self._under_way = True

    def finish(self) -> Step:
        if not self._under_way:
            raise WorkerError(f"there is no step of task {self.task!r} to finish: none was begun, or it was stopped")
        parts = self._answers()
        return Step(*(np.concatenate(field) for field in zip(*parts, strict=True)))

    def state_dict(self) -> dict[str, np.ndarray]:
        parts = self._call("state_dict", [()] * len(self._groups))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> np.ndarray:
        parts = split_state(state, [len(group) for group in self._groups])
        self.seed = int(parts[0]["seed"][0])
        return np.concatenate(self._call("load_state_dict", [(part, strict) for part in parts]))

    def render_frame(self, index: int = 0) -> np.ndarray:
        worker = next(w for w, group in enumerate(self._groups) if index in group)
        self._settle()
        self._send(worker, ("render_frame", (index - self._groups[worker][0],)))
        return self._receive(worker)

    def close(self) -> None:
        pipes, processes, self._pipes, self._processes = self._pipes, self._processes, [], []
        self._under_way = False
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
        deadline = time.monotonic() + PATIENCE
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0.0))
            if process.is_alive():
                process.kill()
                process.join()
            process.close()

    def _start(self, sources: list[Source], cost_keys: tuple[str, ...], seed: int, first: int) -> None:
        ours, theirs = _SPAWN.Pipe()
        # By value, so that functions of a notebook or of the main script reach the worker too.
        order = cloudpickle.dumps((sources, cost_keys, seed, first))
        process = _SPAWN.Process(target=serve, args=(theirs, order), name=f"cvpo-worker-{first}", daemon=True)
        self._pipes.append(ours)
        try:
            process.start()
            self._processes.append(process)
        finally:
            # Only the worker holds its end now, so its death is the end of the stream.
            theirs.close()

    def _call(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        self._order(method, arguments)
        return self._answers()

    def _order(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        self._settle()
        with self._closed_on_error():
            for worker, own in enumerate(arguments):
                self._send(worker, (method, own))

    def _answers(self) -> list[Any]:
        with self._closed_on_error():
            self._under_way = False
            return self._gather()

    def _settle(self) -> None:
        """Wait for a step that was begun and, after an exception in between, never finished; its result is dropped."""
        if not self._pipes:
            raise WorkerError(f"the workers of task {self.task!r} are stopped")
        if self._under_way:
            self._answers()

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # Answers may be under way still, so the pipes cannot be used again.
            self.close()
            raise

    def _gather(self) -> list[Any]:
        return [self._receive(worker) for worker in range(len(self._pipes))]

    def _send(self, worker: int, message: Any) -> None:
        try:
            self._pipes[worker].send(message)
        except OSError as error:
            raise self._death(worker) from error

    def _receive(self, worker: int) -> Any:
        try:
            kind, value = self._pipes[worker].recv()
        except (EOFError, OSError) as error:
            raise self._death(worker) from error
        if kind == "result":
            return value
        if isinstance(value, CvpoError):
            raise value
        message, trace = value
        failure = WorkerError(f"{self._name(worker)}: {message}")
        failure.add_note(trace)
        raise failure

    def _death(self, worker: int) -> WorkerError:
        process = self._processes[worker]
        process.join(5.0)
        code = process.exitcode
        cause = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        return WorkerError(f"{self._name(worker)} {cause}")

    def _name(self, worker: int) -> str:
        group = self._groups[worker]
        which = f"environment {group[0]}" if len(group) == 1 else f"environments {group[0]} to {group[-1]}"
        return f"worker {worker} ({which})"
