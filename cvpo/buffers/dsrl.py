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


def read(path: str | os.PathLike[str]) -> Dataset:
    """The transitions in an HDF5 file with the keys of DSRL: observations, next_observations [n,O], actions [n,D] (or
    [n] for discrete ones), rewards [n], costs [n] or [n,M], terminals, timeouts [n].

    Raises ConfigError where the file cannot be read, lacks a key, has arrays of other lengths or values that are not
    finite, DependencyError without h5py. Source: Liu et al. (2023), arXiv 2306.09303.
    """
    h5py = require("h5py", "a data set in HDF5", "offline")
    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise ConfigError(f"{path} has no {', '.join(missing)}; found {sorted(file)}; allowed: all of {KEYS}")
            arrays = {key: np.asarray(file[key]) for key in KEYS}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as HDF5: {error}") from error
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not lengths["rewards"]:
        raise ConfigError(f"{path} has arrays of lengths {lengths}; allowed: one length, at least 1")
    count = lengths["rewards"]
    for key in ("rewards", "terminals", "timeouts"):
        if arrays[key].size != count:
            raise ConfigError(f"{path}: {key} has shape {list(arrays[key].shape)}; allowed: [{count}]")
    for key in KEYS:
        bad = int((~np.isfinite(arrays[key])).sum())
        if bad:
            raise ConfigError(f"{path}: {key} has {bad} non-finite of {arrays[key].size} values; allowed: finite")
    costs = _table(arrays["costs"], count)
    return Dataset(
        obs=_table(arrays["observations"], count),
        actions=_table(arrays["actions"], count),
        signals=np.concatenate([_table(arrays["rewards"], count), costs], axis=1).T,
        next_obs=_table(arrays["next_observations"], count),
        terminated=arrays["terminals"].reshape(count).astype(bool),
        truncated=arrays["timeouts"].reshape(count).astype(bool),
    )


def _table(array: Any, count: int) -> np.ndarray:
    """[n] or [n,...] as float32 [n,·]."""
    return np.ascontiguousarray(array, dtype=np.float32).reshape(count, -1)
