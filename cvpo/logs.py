"""The log files of a run: JSON lines, the same rows as CSV, and TensorBoard events."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cvpo.errors import RunError
from cvpo.extras import require
from cvpo.files import replacing

Row = Mapping[str, Any]

#: Columns come in this order of groups, by name within each.
GROUPS = ("train/", "estep/", "mstep/", "critic/", "calibration/", "")
FIRST = ("step", "updates", "episodes")


class JsonLines:
    """An append-only file of rows; :meth:`position` and :meth:`rewind` undo what was written after a checkpoint.

    Every method raises RunError where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            self._file = open(path, "ab")  # noqa: SIM115 - open as long as the run

    def append(self, row: Row) -> None:
        """Add one row, see :func:`finite`; it is in the operating system's hands when this returns."""
        with writing(self.path):
            self._file.write(json.dumps(finite(row), allow_nan=False).encode() + b"\n")
            self._file.flush()

    def position(self) -> int:
        """Bytes written, and on disk when this returns."""
        with writing(self.path):
            os.fsync(self._file.fileno())
            return self._file.seek(0, os.SEEK_END)

    def rewind(self, position: int) -> None:
        """Drop everything after ``position``. Raises RunError where the file is shorter than that."""
        with writing(self.path):
            size = self._file.seek(0, os.SEEK_END)
            if size < position:
                raise RunError(
                    f"log {self.path} has {size} bytes, the checkpoint was made at {position}: rows are missing; "
                    "put the whole file back"
                )
            self._file.truncate(position)

    def close(self) -> None:
        with writing(self.path):
            self._file.close()


class CsvTable:
    """The rows of a :class:`JsonLines` file as CSV: one header, columns in :func:`column_order`, empty where missing.

    A row with new columns (the first update brings most of them) rewrites the file from ``source``, so that the header
    is always that of all rows.
    """

    def __init__(self, path: Path, source: Path) -> None:
        self.path, self.source = path, source
        self._columns: list[str] = []
        self._rewrite()

    def append(self, row: Row) -> None:
        """Add one row, which the source has already. Raises RunError."""
        if not set(row) <= set(self._columns):
            self._rewrite()
            return
        with writing(self.path), open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(self._text([row]))

    def _rewrite(self) -> None:
        rows = read_rows(self.source)
        self._columns = column_order({name for row in rows for name in row})
        with writing(self.path), replacing(self.path, encoding="utf-8", newline="") as file:
            file.write(self._text(rows, header=True))

    def _text(self, rows: Iterable[Row], header: bool = False) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self._columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(map(finite, rows))
        return buffer.getvalue()


class Events:
    """TensorBoard events; ``resume_step`` hides those of an earlier process after that step."""

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        require("tensorboard", "a log of events (--no-tensorboard leaves it out)", "train")
        from torch.utils.tensorboard.writer import SummaryWriter

        purge = None if resume_step is None else resume_step + 1
        self._path = path
        with writing(path):
            self._writer = SummaryWriter(str(path), purge_step=purge)

    def append(self, row: Row) -> None:
        """Add the numbers of one row at its ``step``. Raises RunError."""
        with writing(self._path):
            for name, value in row.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        with writing(self._path):
            self._writer.close()


def finite(row: Row) -> dict[str, Any]:
    """``row`` with None for numbers that are not finite: JSON has no words for them."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """An OSError from inside becomes a RunError that names the file."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} could not be written: {error.strerror or error}") from error


def column_order(names: Iterable[str]) -> list[str]:
    """Columns in an order that does not depend on when each first appeared; ``time/`` comes last."""

    def key(name: str) -> tuple[int, int, str]:
        if name in FIRST:
            return 0, FIRST.index(name), name
        if name.startswith("time/"):
            return 2, 0, name
        return 1, next(i for i, group in enumerate(GROUPS) if name.startswith(group)), name

    return sorted(names, key=key)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file; a last line that was cut off by a kill is left out. Raises RunError."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RunError(f"log {path} cannot be read: {error.strerror or error}") from error
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RunError(f"log {path}, line {number}, is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise RunError(f"log {path}, line {number}, is {row!r}; allowed: an object")
        rows.append(row)
    return rows
