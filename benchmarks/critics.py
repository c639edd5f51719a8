"""Critic benchmark: how well critics foresee what a policy goes on to earn and to pay.

    cvpo train --task SafetyPointGoal1-v0 --seed 111 --steps 80000 --run runs/goal
    python -m benchmarks.critics runs/goal

The policy of the run's newest checkpoint is held fixed and plays ``--episodes`` episodes: what came of each of their
steps is ``G_s = Σ_i γ^i x_s,t+i``. For every variant, two critics with fresh weights learn from the run's own replay,
on which other, earlier policies acted, by the updates that training makes. One JSON line a variant goes to
``benchmarks/results/critics.jsonl``, for each signal, reward first, after every ``--every`` updates:

- ``correlation`` of Q_s(o,a) with G_s over all steps, the mean of the two critics, and mean and standard deviation of
  both: whether the critics know in which states costs are to come. The last steps of an episode, of which more than 1 %
  of the discounted weights is missing, are left out.
- ``agreement``: the correlation of the advantages ``Q_s(o,a_k) - mean_k Q_s(o,a_k)`` of the two critics over actions of
  the policy. An E-step follows these, and what two critics with the same data do not share is noise. Errors that they
  share are not seen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from benchmarks.single_steps import single_steps
from benchmarks.to_go import followed
from cvpo.agent import CVPO
from cvpo.run import RunConfig, RunFolder
from cvpo.run.setting import build, evaluation_keys, load_config, make_env, torch_threads
from cvpo.run.versions import versions

TARGET = Path(__file__).parent / "results" / "critics.jsonl"
PARTICLES = 16
Changes = Mapping[str, Mapping[str, Any]]
#: What is changed of the run's own options, by component.
VARIANTS: dict[str, Changes] = {
    **{f"{n} steps": {"buffer": {"steps": n}} for n in (1, 2, 5, 10, 20, 50)},
    **{
        f"10 steps, {name}": {"buffer": {"steps": 10}, "critic": critic}
        for name, critic in (
            ("layer norm", {"layer_norm": True}),
            ("5 cost members", {"cost_members": 5}),
            ("256 x 256", {"hidden": (256, 256)}),
        )
    },
}


@attrs.frozen(eq=False)
class Course:
    """What a policy saw, did, and what came of it: ``obs`` [T,N,O], ``action`` [T,N,D], ``to_go`` G [S,T,N]."""

    obs: Tensor
    action: Tensor
    to_go: np.ndarray


def play(agent: CVPO, env: Any) -> Course:
    """One episode of samples of the policy in each copy of ``env``; they end by their time limit, all at one step."""
    gamma, seen, done, came = agent.spec.gamma, [], [], []
    obs, ended = env.reset(), np.zeros(env.num_envs, bool)
    while not ended.any():
        action = agent.act(obs)
        env.begin(action.cpu().numpy())
        step = env.finish()
        seen.append(torch.as_tensor(obs).clone())
        done.append(action)
        came.append(torch.as_tensor(np.vstack([step.reward[None], step.cost.T]), dtype=torch.float64))
        obs, ended = step.obs, step.terminated | step.truncated
    if not ended.all() or step.terminated.any():
        raise SystemExit("episodes ended early or apart; allowed: a task whose episodes end by their time limit alone")
    last = torch.zeros((len(came), len(ended)), dtype=torch.bool)
    last[-1] = True
    to_go, whole, _ = followed(torch.stack(came), last, gamma)
    kept = int(whole[:, 0].sum())
    if kept < 1:
        raise SystemExit(f"episodes of {len(came)} steps are too short to be graded at a discount of {gamma}")
    return Course(torch.stack(seen[:kept]), torch.stack(done[:kept]), to_go[:, :kept].numpy())


@torch.no_grad()
def grade(agents: Sequence[CVPO], course: Course) -> list[dict[str, float]]:
    """For each signal how well the critics of ``agents`` foresee G_s, and how far they agree on advantages."""
    obs, action = course.obs.flatten(0, 1), course.action.flatten(0, 1)
    # Of one encoding and one normalisation, the run's.
    seen = agents[0].inputs(obs)
    q = np.stack([agent.learner.q_values(seen, action).cpu().numpy() for agent in agents])
    # All are asked for the same actions; the states are those of the episodes, every tenth.
    few = seen[::10]
    actions = agents[0].policy(few).sample(PARTICLES, torch.Generator().manual_seed(0))
    ranked = np.stack([each.config.critic.evaluate(each.learner.critic, few, actions).numpy() for each in agents])
    advantage = (ranked - ranked.mean(-1, keepdims=True)).reshape(*ranked.shape[:2], -1)
    rows = []
    for s, realised in enumerate(course.to_go.reshape(q.shape[1], -1)):
        row = {
            "correlation": np.mean([np.corrcoef(own, realised)[0, 1] for own in q[:, s]]),
            "agreement": np.corrcoef(*advantage[:, s])[0, 1],
        }
        for name, values in (("predicted", q[:, s]), ("realised", realised)):
            row |= {f"{name}_mean": values.mean(), f"{name}_sd": values.std()}
        rows.append({name: round(float(value), 4) for name, value in row.items()})
    return rows


def study(
    agents: Sequence[CVPO], state: dict[str, Any], course: Course, updates: int, every: int
) -> list[dict[str, Any]]:
    """Let the fresh critics of ``agents`` learn from the replay of ``state`` for its policy; grades along the way."""
    for agent in agents:
        # They start apart, draw apart, and have the rest in common.
        drawn = agent.generator.get_state()
        agent.load_state_dict({name: part for name, part in state.items() if name != "store"}, learner=False)
        agent.store.extend(single_steps(state["store"], agent.spec.gamma))
        agent.generator.set_state(drawn)
        for network in (agent.learner.policy, agent.learner.old_policy):
            network.load_state_dict(state["learner"]["policy"])
    found = []
    for update in range(1, updates + 1):
        for agent in agents:
            agent.learner.evaluate_policy(agent.draw()[0])
            agent.learner.averages.step(update)
        if update % every == 0:
            found.append({"updates": update, "signals": grade(agents, course)})
    return found


def changed(config: RunConfig, changes: Changes) -> RunConfig:
    """``config`` with some options of its components changed."""
    parts = {name: attrs.evolve(config.agent[name], **options) for name, options in changes.items()}
    return attrs.evolve(config, agent={**config.agent, **parts})


def twins(config: RunConfig, env: Any) -> tuple[CVPO, CVPO]:
    """Two agents of ``config`` with seeds of their own."""
    first, second = (build(attrs.evolve(config, seed=config.seed + more), env) for more in (0, 1))
    return first, second


def measure(run: Path, variants: Iterable[str], episodes: int, updates: int, every: int) -> Iterable[dict[str, Any]]:
    """A row for each of ``variants``, on the same episodes."""
    folder = RunFolder(run)
    config = load_config(folder)
    flags = [f"--episodes {episodes}", f"--updates {updates}", f"--every {every}"]
    step, tree = folder.checkpoints().newest()
    with (
        torch_threads(config.threads),
        contextlib.closing(make_env(config, copies=episodes, cost_keys=evaluation_keys(config))) as env,
    ):
        player = build(config, env)
        player.load_state_dict(tree["agent"])
        if "done" not in tree["agent"]["store"].get("data", {}):
            raise SystemExit("the run's buffer does not say where episodes end; allowed: a run with an n-step buffer")
        course = play(player, env)
        for variant in variants:
            yield {
                "variant": variant,
                "task": config.task,
                "seed": config.seed,
                "step": step,
                "gamma": player.spec.gamma,
                "episodes": episodes,
                "graded_steps": course.to_go[0].size,
                "grades": study(twins(changed(config, VARIANTS[variant]), env), tree["agent"], course, updates, every),
                "changes": VARIANTS[variant],
                "config": folder.options(),
                "command": " ".join(["python -m benchmarks.critics RUN", *flags]),
                "load": os.getloadavg()[0],
                "versions": versions(),
            }


def main(argv: Iterable[str] | None = None) -> None:
    """Grade the critics of every variant and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of cvpo train")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--updates", type=int, default=3_000)
    parser.add_argument("--every", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args(None if argv is None else list(argv))
    with open(given.out, "w", encoding="utf-8") as file:
        for row in measure(given.run, given.variants, given.episodes, given.updates, given.every):
            file.write(json.dumps(row) + "\n")
            file.flush()
            last = row["grades"][-1]["signals"] if row["grades"] else []
            print(row["variant"], [(each["correlation"], each["agreement"]) for each in last], flush=True)


if __name__ == "__main__":
    main()
