"""The two sides of the update benchmark as processes, and how they are asked in turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / os.environ.get("PEERS", ".venv-peers") / "bin" / "python"
PEER_PACKAGES = ("fast-safe-rl", "tianshou", "gymnasium", "numpy", "torch", "bullet-safety-gym", "pybullet")
#: Ways for us to run the same update: further options of our critic.
VARIANTS: dict[str, dict[str, Any]] = {"float32": {}, "bfloat16": {"particle_dtype": "bfloat16"}}


class Side:
    """A process that answers requests; see ``updates_settings.serve``."""

    def __init__(self, name: str, setting: str, threads: int, variant: str = "float32") -> None:
        self.errors = tempfile.TemporaryFile("w+")
        program = [str(PEER), "-m", "benchmarks.peers_fsrl"]
        if name == "ours":
            program = [sys.executable, "-m", "benchmarks.updates_ours"]
        further = [json.dumps(VARIANTS[variant])] if name == "ours" else []
        self.process = subprocess.Popen(
            [*program, setting, str(threads), *further],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer to one request; RuntimeError with what the process said last where it died."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.errors.seek(0)
            raise RuntimeError(f"{self.process.args} ended: {self.errors.read()[-2000:]}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(timeout=60)


@contextmanager
def sides(setting: str, threads: int, variant: str, *, alone: bool = False) -> Iterator[dict[str, Side]]:
    """Both sides, or ours ``alone``, as where the peer's environment is missing: starting a side takes the processor
    for seconds."""
    names = ("ours",) if alone or not PEER.exists() else ("ours", "peer")
    opened = {name: Side(name, setting, threads, variant) for name in names}
    try:
        yield opened
    finally:
        for side in opened.values():
            side.close()


def quartiles(values: Iterable[float]) -> dict[str, float]:
    """Quartiles to four digits."""
    found = np.percentile(list(values), (25, 50, 75))
    return {name: float(f"{value:.4g}") for name, value in zip(("q1", "median", "q3"), found, strict=True)}


def in_turns(pair: dict[str, Side], pairs: int, do: str, **request: Any) -> dict[str, list[dict[str, Any]]]:
    """Answers of each side to ``pairs`` equal requests, made in turns after one that warms up."""
    for side in pair.values():
        side.ask(do, **request)
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in pair}
    for turn in range(pairs):
        for name in sorted(pair, reverse=turn % 2 == 1):
            answers[name].append(pair[name].ask(do, **request))
    return answers


def peer_versions() -> dict[str, str] | None:
    """The peer's packages; None where its environment is missing."""
    if not PEER.exists():
        return None
    code = f"import json, importlib.metadata as m; print(json.dumps({{p: m.version(p) for p in {PEER_PACKAGES}}}))"
    return json.loads(subprocess.run([PEER, "-c", code], capture_output=True, text=True, check=True).stdout)
