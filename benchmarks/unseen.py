"""Unseen episodes: how much of what value networks learn holds in episodes that they have not learned from.

    cvpo train --task SafetyPointGoal1-v0 --seed 110 --steps 1000000 --run runs/goal
    python -m benchmarks.unseen runs/goal

From the replay of the run's newest checkpoint comes, for each step but those near its episode's end, what followed it:
``G_s = Σ_i γ^i x_s,t+i``. A network of the critic's size and normalisation learns G_s from the observation, by least
squares on batches of ``--batch``, from the newest ``--episodes`` episodes of three quarters of the environments; the
newer half of the others' episodes is held out. It sees an observation as it is (``--pieces 0``) or in so many pieces.
One JSON line for each encoding, number of episodes and signal, reward first, goes to
``benchmarks/results/unseen.jsonl``: the correlation of the network's values with G_s where it learned and where it did
not, after several numbers of updates. No bootstrap is made and no action is seen: this is what such a network can know,
at best, of a state's value from so many episodes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.single_steps import single_steps
from benchmarks.to_go import followed
from cvpo.envs.pieces import PiecewiseEncoding
from cvpo.networks import StackedMLP
from cvpo.run import RunConfig, RunFolder
from cvpo.run.setting import load_config, make_env, torch_threads
from cvpo.run.versions import versions

TARGET = Path(__file__).parent / "results" / "unseen.jsonl"
UPDATES = (500, 1_000, 2_000, 4_000)
#: States whose values are asked for at once: encoded, those of a million steps would fill gigabytes.
CHUNK = 65_536


@attrs.frozen(eq=False)
class Value:
    """``V(o)`` of one signal: a network of the size and normalisation of the run's critic, on ``encoding`` of o."""

    network: StackedMLP
    encoding: PiecewiseEncoding | None

    @classmethod
    def like(cls, critic: Any, obs_size: int, encoding: PiecewiseEncoding | None) -> Value:
        size, generator = obs_size if encoding is None else encoding.size, torch.Generator().manual_seed(1)
        return cls(StackedMLP(1, size, critic.hidden, 1, layer_norm=critic.layer_norm, generator=generator), encoding)

    def __call__(self, obs: Tensor) -> Tensor:
        seen = obs if self.encoding is None else self.encoding(obs)
        return self.network(seen.unsqueeze(0))[0, :, 0]


def learn(value: Value, seen: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor], batch: int) -> Iterator[Any]:
    """Least squares on ``seen`` (observations, values); correlations on both after each of the numbers of updates."""
    optimiser, generator = torch.optim.Adam(value.network.parameters(), 1e-3), torch.Generator().manual_seed(0)
    obs, followed_by = seen
    for update in range(1, UPDATES[-1] + 1):
        index = torch.randint(len(obs), (batch,), generator=generator)
        loss = F.mse_loss(value(obs[index]), followed_by[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if update in UPDATES:
            yield {"updates": update, "seen": correlation(value, seen), "unseen": correlation(value, unseen)}


@torch.no_grad()
def correlation(value: Value, data: tuple[Tensor, Tensor]) -> float:
    """Of the network's values with those of ``data``."""
    predicted = torch.cat([value(some) for some in data[0].split(CHUNK)])
    return round(float(np.corrcoef(predicted.numpy(), data[1].numpy())[0, 1]), 4)


def encodings(config: RunConfig, pieces: Iterable[int]) -> dict[int, PiecewiseEncoding | None]:
    """By their number of pieces; 0 is none."""
    with contextlib.closing(make_env(config, copies=1, cost_keys=config.cost_keys)) as env:
        space = env.observation_space
    return {number: PiecewiseEncoding(space, number) if number else None for number in pieces}


def measure(run: Path, pieces: Sequence[int], episodes: Sequence[int], batch: int) -> Iterator[dict[str, Any]]:
    """A row for each encoding, number of newest episodes and signal. Raises SystemExit for a run that has not what it
    takes."""
    folder = RunFolder(run)
    config = load_config(folder)
    step, tree = folder.checkpoints().newest()
    if config.num_envs < 2 or "done" not in tree["agent"]["store"].get("data", {}):
        raise SystemExit(
            f"{run} has {config.num_envs} environment(s) and {type(config.agent['buffer']).__name__}; allowed: a run "
            "with several environments, one to hold out, and an n-step buffer, which says where episodes end"
        )
    gamma = config.agent["gamma"]
    flags = f"--pieces {' '.join(map(str, pieces))} --episodes {' '.join(map(str, episodes))} --batch {batch}"
    with torch_threads(config.threads):
        steps = single_steps(tree["agent"]["store"], gamma)
        total, whole, later = followed(steps.signals, steps.terminated | steps.truncated, gamma)
        copies = steps.obs.shape[1]
        learned = copies - max(copies // 4, 1)
        held = torch.arange(copies) >= learned
        unseen = whole & (later <= later.amax() // 2) & held
        for (number, encoding), count in itertools.product(encodings(config, pieces).items(), episodes):
            parts = {"seen": whole & (later <= math.ceil(count / learned)) & ~held, "unseen": unseen}
            for signal, realised in enumerate(total):
                data = {name: (steps.obs[part], realised[part]) for name, part in parts.items()}
                value = Value.like(config.agent["critic"], steps.obs.shape[2], encoding)
                yield {
                    "task": config.task,
                    "seed": config.seed,
                    "step": step,
                    "signal": "reward" if not signal else config.cost_keys[signal - 1],
                    "pieces": number,
                    "episodes": count,
                    "seen_steps": int(parts["seen"].sum()),
                    "unseen_steps": int(parts["unseen"].sum()),
                    "grades": list(learn(value, data["seen"], data["unseen"], batch)),
                    "config": folder.options(),
                    "command": f"python -m benchmarks.unseen RUN {flags}",
                    "load": os.getloadavg()[0],
                    "versions": versions(),
                }


def main(argv: Iterable[str] | None = None) -> None:
    """Grade networks of every encoding and number of episodes and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of cvpo train with several environments")
    parser.add_argument("--pieces", nargs="+", type=int, default=[0, 8], help="0: the observation as it is")
    parser.add_argument("--episodes", nargs="+", type=int, default=[24, 96, 384, 744])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args(None if argv is None else list(argv))
    with open(given.out, "w", encoding="utf-8") as file:
        for row in measure(given.run, given.pieces, given.episodes, given.batch):
            file.write(json.dumps(row) + "\n")
            file.flush()
            grades = [(each["seen"], each["unseen"]) for each in row["grades"]]
            print(row["pieces"], row["episodes"], row["signal"], grades, flush=True)


if __name__ == "__main__":
    main()
