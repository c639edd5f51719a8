"""Log files: rows that can be taken back to a checkpoint, and columns that do not depend on when they appeared."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import pytest

from cvpo.errors import DependencyError, RunError
from cvpo.logs import CsvTable, Events, JsonLines, column_order, read_rows


def test_rows_come_back_and_can_be_taken_back(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log")
    log.append({"step": 1, "value": 0.1})
    place = log.position()
    log.append({"step": 2, "value": None})
    log.close()
    again = JsonLines(tmp_path / "log")
    again.rewind(place)
    again.append({"step": 3, "value": 1 / 3})
    again.close()
    assert read_rows(tmp_path / "log") == [{"step": 1, "value": 0.1}, {"step": 3, "value": 1 / 3}]


def test_a_log_shorter_than_its_checkpoint_is_an_error(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log")
    log.append({"step": 1})
    with pytest.raises(RunError, match="rows are missing"):
        log.rewind(log.position() + 1)


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"step": 1}\n{"step": 2, "val')
    assert read_rows(tmp_path / "log") == [{"step": 1}]
    (tmp_path / "log").write_bytes(b'{"step": 1\n{"step": 2}\n')
    with pytest.raises(RunError, match="line 1"):
        read_rows(tmp_path / "log")


def test_the_table_has_one_header_whatever_comes_later(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log")
    table = CsvTable(tmp_path / "table", tmp_path / "log")
    rows = [{"step": 1, "time/a": 5.0}, {"step": 2, "time/a": 6.0, "estep/eta": 0.5}, {"step": 3, "time/a": 7.0}]
    for row in rows:
        log.append(row)
        table.append(row)
    with open(tmp_path / "table", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["step", "estep/eta", "time/a"]
    assert [row["estep/eta"] for row in found] == ["", "0.5", ""]
    assert [row["step"] for row in found] == ["1", "2", "3"]


def test_columns_have_an_order_of_their_own() -> None:
    names = ["time/x", "critic/loss", "mstep/b", "estep/eta", "train/return", "own", "updates", "mstep/a", "step"]
    expected = ["step", "updates", "train/return", "estep/eta", "mstep/a", "mstep/b", "critic/loss", "own", "time/x"]
    assert column_order(names) == column_order(reversed(names)) == expected


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    with pytest.raises(RunError, match="log could not be written: No space left on device"):
        JsonLines(tmp_path / "log").append({"step": 1})


def test_events_are_read_back(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = Events(tmp_path)
    for step in (1, 2, 3):
        events.append({"step": step, "train/return": float(step), "train/cost_0": None})
    events.close()
    # What a killed process wrote after its last checkpoint, at step 1, is hidden by the process that goes on.
    again = Events(tmp_path, resume_step=1)
    again.append({"step": 2, "train/return": 20.0})
    again.close()
    read = accumulator.EventAccumulator(str(tmp_path))
    read.Reload()
    assert read.Tags()["scalars"] == ["train/return"]
    assert [(event.step, event.value) for event in read.Scalars("train/return")] == [(1, 1.0), (2, 20.0)]


def test_without_tensorboard_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(DependencyError, match=r"pip install 'cvpo\[train\]'"):
        Events(tmp_path)
