"""Checkpoints: whole or absent, read without executing code, a damaged one found out and passed over."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from cvpo import checkpoint
from cvpo.checkpoint import CheckpointFolder
from cvpo.errors import CheckpointError

TREE = {
    "numbers": [True, 1, 1.5, -0.0, 2**200, None, "text", float("inf")],
    "tuple": (1, (2, [3])),
    3: {"keys that are numbers": torch.arange(4)},
    "nested": {"empty": {}, "zero": torch.tensor(1.25, dtype=torch.float64), "none": torch.zeros(0, 3)},
    "nan": torch.tensor([float("nan"), 1.0]),
    "bool": torch.tensor([True, False]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "array": np.arange(6, dtype=np.int64).reshape(2, 3),
}


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    tree = {**TREE, "view": shared[2:], "transposed": torch.arange(6.0).reshape(2, 3).T, "again": shared}
    checkpoint.write(tmp_path / "deep" / "file", tree)
    assert_same(checkpoint.read(tmp_path / "deep" / "file"), tree)


class Named(NamedTuple):
    first: torch.Tensor
    count: int


def test_a_tuple_with_names_comes_back_as_a_plain_one(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "file", {"state": Named(torch.arange(3), 2)})
    state = checkpoint.read(tmp_path / "file")["state"]
    assert type(state) is tuple and torch.equal(state[0], torch.arange(3)) and state[1] == 2


def test_generator_states_come_back(tmp_path: Path) -> None:
    rng, generator = np.random.default_rng(3), torch.Generator().manual_seed(3)
    checkpoint.write(tmp_path / "file", {"rng": rng.bit_generator.state, "torch": generator.get_state()})
    expected = rng.random(), torch.rand(3, generator=generator)
    state = checkpoint.read(tmp_path / "file")
    rng.bit_generator.state = state["rng"]
    generator.set_state(state["torch"])
    assert rng.random() == expected[0]
    assert torch.equal(torch.rand(3, generator=generator), expected[1])


def test_what_is_no_plain_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a function cannot be saved"):
        checkpoint.write(tmp_path / "file", {"loss": lambda x: x})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, 0.5, -1])
def test_a_truncated_file_is_found_out(tmp_path: Path, length: float) -> None:
    path = tmp_path / "file"
    checkpoint.write(path, TREE)
    size = path.stat().st_size
    os.truncate(path, int(size * length) if length == 0.5 else int(length) % size)
    with pytest.raises(CheckpointError, match=str(path)):
        checkpoint.read(path)


def test_any_flipped_byte_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "file"
    checkpoint.write(path, {"weights": torch.arange(3.0), "steps": 17, "loss": 0.25})
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x04
        path.write_bytes(bytes(damaged))
        with pytest.raises(CheckpointError):
            checkpoint.read(path)


def test_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing"):
        checkpoint.read(tmp_path / "nothing")


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    torch.save({"agent": 1}, tmp_path / "file")
    with pytest.raises(CheckpointError):
        checkpoint.read(tmp_path / "file")


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (5, 30, 200):
        folder.write(step, {"step": step})
    assert [step for step, _ in folder.files()] == [30, 200]
    assert folder.newest() == (200, {"step": 200})


def test_a_damaged_newest_one_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    folder, warnings = CheckpointFolder(tmp_path), list[str]()
    for step in (1, 2, 3):
        path = folder.write(step, {"step": step})
    os.truncate(path, path.stat().st_size - 1)
    assert folder.newest(warn=warnings.append) == (2, {"step": 2})
    assert len(warnings) == 1 and str(path) in warnings[0]
    for _, each in folder.files():
        os.truncate(each, 3)
    with pytest.raises(CheckpointError, match="step-0000000001"):
        folder.newest()


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        CheckpointFolder(tmp_path).newest()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_leaves_the_earlier_ones(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.write(1, {"step": 1})
    # Every write to this device fails as on a full disk.
    (tmp_path / "step-0000000002.safetensors.partial").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="step-0000000002.*No space left on device"):
        folder.write(2, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001.safetensors"]
    assert folder.newest() == (1, {"step": 1})
    folder.write(2, {"step": 2})
    assert folder.newest() == (2, {"step": 2})


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="needs /dev/null")
def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to("/dev/null")
    with pytest.raises(CheckpointError, match="file could not be written: it is no regular file"):
        checkpoint.write(tmp_path / "file", {"step": 1})
    assert (tmp_path / "file").is_symlink()


def test_a_disk_that_fills_up_half_way_leaves_the_same_one_before(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "file", {"step": 1})
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="could not be written"):
            checkpoint.write(tmp_path / "file", {"step": 2, "data": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert checkpoint.read(tmp_path / "file") == {"step": 1}


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for name in left:
            assert_same(left[name], right[name])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for pair in zip(left, right, strict=True):
            assert_same(*pair)
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype and left.shape == right.shape
        assert torch.equal(left.nan_to_num(), right.nan_to_num())
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    else:
        assert left == right and str(left) == str(right)
