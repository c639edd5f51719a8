"""The folder of a run: its files, how it is made, and who may write to it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from cvpo.checkpoint import CheckpointFolder
from cvpo.errors import RunError
from cvpo.files import replacing
from cvpo.logs import writing
from cvpo.run.config import RunConfig, read_options, to_json
from cvpo.run.versions import versions

LOCK = "lock"
BEGUN = {LOCK, "versions.json", "versions.json.partial", "config.json.partial"}
"""What is in the folder of a run that was killed before it had written what it is: nothing is lost there."""


@attrs.frozen
class RunFolder:
    """Paths of a run's files. ``checkpoints`` keeps the newest few."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def versions(self) -> Path:
        return self.path / "versions.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def table(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.jsonl"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def checkpoints(self, keep: int = 3) -> CheckpointFolder:
        return CheckpointFolder(self.path / "checkpoints", keep)

    def options(self) -> dict[str, Any]:
        """The flat options that the run was made with. Raises RunError where this is not a run folder."""
        if not self.config.is_file():
            raise RunError(f"{self.path} is not a run folder: it has no config.json")
        return read_options(self.config)


def default_path(config: RunConfig) -> Path:
    """``runs/<task>/seed-<seed>-<time>``; a number is added where that exists."""
    stem = Path("runs") / config.task.replace("/", "-") / f"seed-{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, count = stem, 1
    while path.exists():
        path, count = stem.with_name(f"{stem.name}-{count}"), count + 1
    return path


def check_new(path: Path) -> None:
    """Raises RunError where ``path`` is there and not an empty folder, or one with no more than :data:`BEGUN`."""
    if path.is_dir():
        if any(each.name not in BEGUN for each in path.iterdir()):
            more = f"continue it with `cvpo resume {path}`, or " if (path / "config.json").exists() else ""
            raise RunError(f"run folder {path} exists already and is not empty; {more}choose another folder")
    elif path.exists():
        raise RunError(f"run folder {path} is a file; choose another folder")


@contextlib.contextmanager
def created(path: Path, options: Mapping[str, Any]) -> Iterator[RunFolder]:
    """A new run folder with its configuration and versions, held by this process meanwhile. Raises RunError where it
    exists, cannot be made, or is another process's."""
    folder = RunFolder(path)
    text = to_json(options)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Lock(folder)):
        # By who holds it: of two processes that find it empty at once, the second finds it held or written.
        check_new(path)
        write_text(folder.versions, json.dumps(versions(), indent=2) + "\n")
        write_text(folder.config, text)
        yield folder


def write_text(path: Path, text: str) -> None:
    """Write ``text`` under ``path``, all or nothing. Raises RunError."""
    with writing(path), replacing(path, encoding="utf-8") as file:
        file.write(text)


def changed_versions(folder: RunFolder) -> list[str]:
    """``"name: then -> now"`` for everything that differs from when the run was started."""
    try:
        then = json.loads(folder.versions.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ["versions.json: cannot be read"]
    now = versions()
    return [f"{name}: {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name]]


def changed_options(then: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """``"name: then -> now"`` for everything in a run's configuration that differs from when a checkpoint was written,
    but for the number of steps, which may grow. ``then`` is None in older checkpoints."""
    if then is None:
        return []
    names = [name for name in {**then, **now} if name != "steps" and then.get(name) != now.get(name)]
    return [f"{name}: {then.get(name)!r} -> {now.get(name)!r}" for name in names]


class Lock:
    """Holds a run folder for one process, so that two never write to it; ends with the process, however it ends.

    Raises RunError where another process holds it. Without ``fcntl`` (Windows) it does nothing.
    """

    def __init__(self, folder: RunFolder) -> None:
        try:
            import fcntl
        except ImportError:
            self._file = None
            return
        with writing(folder.path / LOCK):
            self._file = open(folder.path / LOCK, "a", encoding="utf-8")  # noqa: SIM115 - held until close
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise RunError(f"run folder {folder.path} is in use by another process") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
