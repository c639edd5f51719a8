"""Offline data sets in the layout of DSRL: one HDF5 file of equally long arrays, all episodes one after the other."""

from __future__ import annotations

import os
from typing import Any

import attrs
import numpy as np

from cvpo.errors import ConfigError
from cvpo.extras import require

KEYS = ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts")


@attrs.frozen(eq=False)
class Dataset:
    """n transitions in the order they were taken: ``obs``, ``next_obs`` [n,O], ``actions`` [n,D] in the environment's
    own scale, ``signals`` [S,n] (reward first), ``terminated``, ``truncated`` [n] bool; float32."""

    obs: np.ndarray
    actions: np.ndarray
    signals: np.ndarray
    next_obs: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def __len__(self) -> int:
        return len(self.obs)


def read(path: str | os.PathLike[str], *, costs: bool = True) -> Dataset:
    """The transitions in an HDF5 file with the keys of DSRL: observations, next_observations [n,O], actions [n,D] (or
    [n] for discrete ones), rewards [n], costs [n] or [n,M], terminals, timeouts [n]. Without ``costs`` these are left
    out, for an agent without cost limits, and need not be there.

    Raises ConfigError where the file cannot be read, lacks a key, has arrays of other lengths or values that are not
    finite, DependencyError without h5py. Source: Liu et al. (2023), arXiv 2306.09303.
    """
    keys = [key for key in KEYS if costs or key != "costs"]
    h5py = require("h5py", "a data set in HDF5", "offline")
    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in keys if key not in file]
            if missing:
                hint = ", or costs=False" if "costs" in missing else ""
                found = f"{path} has no {', '.join(missing)}; found {sorted(file)}"
                raise ConfigError(f"{found}; allowed: all of {KEYS}{hint}")
            arrays = {key: np.asarray(file[key]) for key in keys}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as HDF5: {error}") from error
    for key, array in arrays.items():
        if not array.ndim or array.dtype.kind not in "biuf":
            raise ConfigError(
                f"{path}: {key} is {array.dtype} of shape {list(array.shape)}; allowed: an array of numbers"
            )
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not lengths["rewards"]:
        raise ConfigError(f"{path} has arrays of lengths {lengths}; allowed: one length, at least 1")
    count = lengths["rewards"]
    for key in ("rewards", "terminals", "timeouts"):
        if arrays[key].size != count:
            raise ConfigError(f"{path}: {key} has shape {list(arrays[key].shape)}; allowed: [{count}]")
    tables = {key: _table(array, count) for key, array in arrays.items()}
    for key, table in tables.items():
        bad = int((~np.isfinite(table)).sum())
        if bad:
            raise ConfigError(f"{path}: {key} has {bad} non-finite of {table.size} values; allowed: finite in float32")
    for key in ("terminals", "timeouts"):
        if not np.isin(tables[key], (0.0, 1.0)).all():
            raise ConfigError(f"{path}: {key} has values other than 0 and 1; allowed: flags")
    return Dataset(
        obs=tables["observations"],
        actions=tables["actions"],
        signals=np.concatenate([tables[key] for key in ("rewards", "costs") if key in tables], axis=1).T,
        next_obs=tables["next_observations"],
        terminated=tables["terminals"][:, 0] != 0,
        truncated=tables["timeouts"][:, 0] != 0,
    )


def _table(array: Any, count: int) -> np.ndarray:
    """[n] or [n,...] as float32 [n,·]; infinite where it is too large for that."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32).reshape(count, -1)
