"""The suites of :mod:`benchmarks.tasks`: which task, which variants of the agent, how long, and what is looked for."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

#: With and without the constraint: the task's preset as it is, and plain MPO with the same steps, whose costs are
#: reported all the same.
CONSTRAINT: Mapping[str, tuple[str, ...]] = {"constrained": (), "unconstrained": ("--cost-limits",)}

#: The task's preset alone.
PRESET: Mapping[str, tuple[str, ...]] = {"constrained": ()}

#: One choice changed at a time, all else the task's preset: how the cost critic's two members are made one (the circle
#: preset's own is ``max``, the others' ``mean``), the E-step's solver, the M-step's projection and fit.
ABLATION: Mapping[str, tuple[str, ...]] = {
    **{
        name: ("--critic.members", "2", "--critic.cost", rule)
        for name, rule in (("mean", "mean"), ("max", "max"), ("ucb", "ucb:1"))
    },
    "slsqp": ("--estep", "slsqp"),
    "adam": ("--estep", "adam"),
    "full": ("--mstep", "full", "--mstep.kl", "0.1"),
    "regression": ("--fit", "regression", "--fit.iterations", "2"),
}


#: Which constrained problem: the paper's limit or the performance difference, neither with a stride, on replayed or on
#: the newest states.
LIMITS: Mapping[str, tuple[str, ...]] = {
    f"{limit}-{states}": ("--limit", limit, "--limit.stride", "None", "--states", states)
    for limit in ("q", "policy")
    for states in ("replay", "recent")
}


@attrs.frozen
class Suite:
    """A ``task``, run for ``steps`` environment steps in ``variants`` (by name: further options of ``cvpo train``,
    after ``common``, those of every variant).

    ``limits`` are those of the episode costs, in the order of the task's costs; variants without a constraint are held
    against them too. The mode and the samples of the policy are evaluated every ``eval_every`` steps. ``reach``: the
    returns whose first step the report names.
    """

    task: str
    variants: Mapping[str, tuple[str, ...]]
    steps: int
    limits: tuple[float, ...]
    eval_every: int
    reach: tuple[float, ...] = ()
    common: tuple[str, ...] = ()

    def command(self, variant: str, seed: int, steps: int | None = None) -> list[str]:
        """Arguments of ``cvpo`` that train this run, but for its folder."""
        run = ["--task", self.task, "--seed", str(seed), "--steps", str(self.steps if steps is None else steps)]
        return ["train", *run, "--eval-every", str(self.eval_every), *self.common, *self.variants[variant]]


#: Ten times the steps for as many updates: what an ablation comes to once learning is over, in minutes a run.
SPARSE = ("--num-envs", "4", "--updates-per-step", "0.05")

#: The newest policy evaluated, as when these were run.
NEWEST = ("--policy-average", "0")

CHEETAH = "SafetyHalfCheetahVelocity-v1"

SUITES: dict[str, Suite] = {
    "sprint": Suite("cvpo/Sprint-v0", CONSTRAINT, 6_000, (25.0,), 2_000, (30.0, 60.0)),
    "sprint-discrete": Suite("cvpo/SprintDiscrete-v0", CONSTRAINT, 6_000, (25.0,), 2_000, (30.0, 60.0)),
    "sprint-two-costs": Suite("cvpo/SprintTwoCosts-v0", CONSTRAINT, 6_000, (25.0, 5.0), 2_000, (30.0, 60.0)),
    "velocity": Suite("SafetyHopperVelocity-v1", CONSTRAINT, 20_000, (25.0,), 5_000, (300.0, 1_000.0)),
    "half-cheetah-short": Suite(CHEETAH, CONSTRAINT, 80_000, (25.0,), 20_000, (1_000.0, 1_800.0)),
    "car-circle": Suite("SafetyCarCircle-v0", PRESET, 350_000, (10.0,), 10_000, (330.0, 400.0, 430.0)),
    "car-circle-long": Suite("SafetyCarCircle-v0", PRESET, 200_000, (10.0,), 10_000, (330.0, 400.0, 430.0)),
    "half-cheetah": Suite(CHEETAH, PRESET, 1_000_000, (25.0,), 20_000, (1_800.0, 2_700.0), NEWEST),
    "point-circle": Suite("SafetyPointCircle1-v0", PRESET, 500_000, (25.0,), 50_000, (25.0, 50.0)),
    "point-goal": Suite("SafetyPointGoal1-v0", PRESET, 1_000_000, (25.0,), 50_000, (10.0, 15.0)),
    "ant": Suite("SafetyAntVelocity-v1", PRESET, 1_000_000, (25.0,), 25_000, (1_000.0, 2_000.0)),
    "ablation-circle": Suite("SafetyBallCircle-v0", ABLATION, 15_000, (10.0,), 5_000, (400.0, 500.0)),
    "ablation-velocity": Suite("SafetyHopperVelocity-v1", ABLATION, 20_000, (25.0,), 5_000, (500.0, 1_000.0)),
    "ablation-circle-long": Suite("SafetyBallCircle-v0", ABLATION, 200_000, (10.0,), 20_000, (400.0, 500.0), SPARSE),
    "ablation-velocity-long": Suite(
        "SafetyHopperVelocity-v1", ABLATION, 200_000, (25.0,), 20_000, (1_000.0, 1_200.0), SPARSE
    ),
    "limits-circle": Suite("SafetyBallCircle-v0", {**PRESET, **LIMITS}, 15_000, (10.0,), 5_000, (400.0, 500.0)),
    "limits-velocity": Suite("SafetyHopperVelocity-v1", LIMITS, 20_000, (25.0,), 5_000, (500.0, 1_000.0)),
}

#: What ``python -m benchmarks.tasks`` runs when no suite is named.
DEFAULT = ("car-circle", "half-cheetah", "point-circle", "point-goal", "ant")
