"""The agent's configuration: component instances and numbers. Every default of the algorithm is here, once."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np

from cvpo.critics.level import check_level
from cvpo.critics.limits import LIMIT_KINDS
from cvpo.errors import ConfigError
from cvpo.validators import flag, number, one_of


def _limits(value: Any) -> tuple[float, ...]:
    """A number, or a sequence or one-dimensional array of them."""
    try:
        numbers = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        numbers = np.asarray(None)
    if numbers.ndim > 1 or numbers.dtype.kind not in "iuf":
        raise ConfigError(
            f"cost_limits is {value!r}; allowed: a finite number >= 0, or a sequence of them, one for each cost"
        )
    return tuple(map(float, numbers.reshape(-1)))


def _check_limits(instance: Any, attribute: attrs.Attribute[Any], value: tuple[float, ...]) -> None:
    for limit in value:
        if not 0.0 <= limit < float("inf"):
            raise ConfigError(f"cost_limits has {limit}; allowed: finite numbers >= 0, one for each cost")


@attrs.frozen(kw_only=True)
class AgentConfig:
    """What a CVPO agent is made of; build one with :func:`cvpo.make_agent`.

    Components (instances): ``estep`` solver, ``mstep`` projection, ``fit`` of the network, ``policy``, ``critic``,
    ``returns`` (the critics' targets), ``buffer``, ``limit`` (which constraint), ``limit_schedule`` (the limits on the
    way), ``states`` (those of the E-step).

    Constraint: ``cost_limits``, one for each cost, in units of ``limit_kind`` (``"episode"`` sum, ``"step"``,
    ``"discounted"`` sum); ``aim`` is the share of the limits that training aims at: less than 1 leaves room where the
    policy's mode costs more than its samples. ``horizon`` T in steps; ``adaptive_horizon`` takes the mean length of the
    newest ``measure_episodes`` episodes for T instead, once there are any; ``horizon_terminates`` says that the end of
    the horizon is a termination, not a truncation. What the limit calls the policy's own cost is measured on as many
    episodes, or on the newest ``measure_steps`` steps. ``integral_steps`` H, if any: limits are tightened by the excess
    of those steps' cost, summed up over the steps and divided by H; see :class:`cvpo.constraint.Constraint`.

    E-step: ``estep_batch`` states B (None: ``batch_size``), ``particles`` K actions for each, ``kl_epsilon`` bound,
    ``estep_critic`` target (paper) or online, ``warm_start`` from the previous duals.

    Old policy π₀: ``old_policy`` is a polyak average with rate ``old_tau`` (paper), or a copy every ``old_period``
    updates. ``policy_average`` σ, if not 0: evaluation and prediction are those of an average over that share of the
    updates so far, θ̄ <- θ̄ + (θ − θ̄)/max(1, σ n) in the n-th of them; exploring and learning go on with θ.

    Critics: Adam at ``critic_lr``; the target network is a polyak average with rate ``target_tau``, and
    ``td_critic`` says whether TD targets are made of it (paper) or of the ``"online"`` one; the bootstrap takes
    ``target_particles`` actions of the old (paper) or online policy; ``mask_cost`` stops the bootstrap of costs at
    termination; ``level_rate`` ρ corrects the level of Q in every update, for targets of the target network; see
    :func:`cvpo.critics.level.correct_level`. The first ``critic_warmup`` updates train the critics alone: an
    E-step goes as far as its KL bound lets it, also where Q-values differ by chance only.

    Observations, as the networks see them: ``obs_pieces`` T, if any, encodes each number that has bounds in T pieces;
    see :class:`cvpo.envs.pieces.PiecewiseEncoding`. ``normalise_obs`` brings what is seen to mean 0 and deviation 1.
    """

    estep: Any
    mstep: Any
    fit: Any
    policy: Any
    critic: Any
    returns: Any
    buffer: Any
    limit: Any
    limit_schedule: Any
    states: Any

    cost_limits: tuple[float, ...] = attrs.field(default=(), converter=_limits, validator=_check_limits)
    limit_kind: str = attrs.field(default="episode", validator=one_of(LIMIT_KINDS))
    gamma: float = attrs.field(default=0.99, validator=number(gt=0, lt=1))
    aim: float = attrs.field(default=1.0, validator=number(gt=0, le=1))
    horizon: int | None = attrs.field(default=None, validator=number(ge=1, integer=True, optional=True))
    horizon_terminates: bool = attrs.field(default=False, validator=flag)
    adaptive_horizon: bool = attrs.field(default=True, validator=flag)
    measure_episodes: int = attrs.field(default=5, validator=number(ge=1, integer=True))
    measure_steps: int = attrs.field(default=1_000, validator=number(ge=1, integer=True))
    integral_steps: int | None = attrs.field(default=None, validator=number(ge=1, integer=True, optional=True))

    batch_size: int = attrs.field(default=256, validator=number(ge=1, integer=True))
    estep_batch: int | None = attrs.field(default=None, validator=number(ge=1, integer=True, optional=True))
    particles: int = attrs.field(default=16, validator=number(ge=1, integer=True))
    kl_epsilon: float = attrs.field(default=0.1, validator=number(gt=0))
    estep_critic: str = attrs.field(default="target", validator=one_of(("target", "online")))
    td_critic: str = attrs.field(default="target", validator=one_of(("target", "online")))
    warm_start: bool = attrs.field(default=True, validator=flag)

    old_policy: str = attrs.field(default="polyak", validator=one_of(("polyak", "copy")))
    old_tau: float = attrs.field(default=0.05, validator=number(gt=0, le=1))
    old_period: int = attrs.field(default=1, validator=number(ge=1, integer=True))
    policy_average: float = attrs.field(default=0.0, validator=number(ge=0, lt=1))

    critic_lr: float = attrs.field(default=1e-3, validator=number(gt=0))
    target_tau: float = attrs.field(default=0.01, validator=number(gt=0, le=1))
    target_policy: str = attrs.field(default="old", validator=one_of(("old", "online")))
    target_particles: int = attrs.field(default=1, validator=number(ge=1, integer=True))
    mask_cost: bool = attrs.field(default=True, validator=flag)
    level_rate: float = attrs.field(default=0.0, validator=number(ge=0, lt=1))
    critic_warmup: int = attrs.field(default=0, validator=number(ge=0, integer=True))
    obs_pieces: int | None = attrs.field(default=None, validator=number(ge=1, integer=True, optional=True))
    normalise_obs: bool = attrs.field(default=False, validator=flag)

    def __attrs_post_init__(self) -> None:
        if self.cost_limits and self.horizon is None:
            self._check_untimed()
        if getattr(self.states, "of_batch", False) and (self.estep_batch or 0) > self.batch_size:
            raise ConfigError(
                f"estep_batch is {self.estep_batch}, more than the {self.batch_size} of batch_size, which states="
                f"{type(self.states).__name__} are taken from; allowed: at most these, or states='recent'"
            )
        if self.returns.windows:
            self._check_windows()
        if self.level_rate:
            if self.td_critic != "target":
                raise ConfigError(f"level_rate is {self.level_rate} and td_critic 'online'; allowed: one of the two")
            check_level(self.level_rate, self.critic, self.returns)
        # A schedule for another number of costs is an error here, not in the middle of a run.
        self.limits_at(0)

    def limits_at(self, steps: int) -> tuple[float, ...]:
        """The cost limits [M] after ``steps`` environment steps. Raises ConfigError where the schedule gives others."""
        found = self.limit_schedule.limits(self.cost_limits, steps)
        try:
            limits = tuple(map(float, found))
        except (TypeError, ValueError):
            limits = None
        if limits is None or len(limits) != len(self.cost_limits) or not all(0.0 <= c < math.inf for c in limits):
            raise ConfigError(
                f"limit_schedule {type(self.limit_schedule).__name__} gives {found!r} at step {steps}; allowed: a "
                f"finite number >= 0 for each of the {len(self.cost_limits)} cost_limits"
            )
        return limits

    def _check_untimed(self) -> None:
        if self.limit_kind == "episode":
            what = "an episode cost limit"
        elif self.horizon_terminates:
            what = f"limit_kind {self.limit_kind!r} with horizon_terminates"
        elif self.limit.measure not in ("discounted", "steps") and not self.adaptive_horizon:
            what = f"limit.measure {self.limit.measure!r} without adaptive_horizon"
        else:
            return
        raise ConfigError(f"horizon is None; {what} needs the episode length in steps, horizon=T")

    def _check_windows(self) -> None:
        name = type(self.returns).__name__
        if not getattr(self.buffer, "windows", False):
            raise ConfigError(
                f"returns {name} need the single steps of each window, and buffer {type(self.buffer).__name__} is not "
                "set to give them; allowed: a buffer such as {'name': 'nstep', 'steps': 5, 'windows': True}"
            )
        if getattr(self.critic, "distributional", False):
            raise ConfigError(
                f"returns {name} correct expected values, and critic {type(self.critic).__name__} learns the "
                "distribution of the return; allowed: returns='td', or a critic of expected values"
            )

    def check_actions(self, space: Any, *, discrete: bool) -> None:
        """Raises ConfigError where policy or projection are not for the actions of ``space``."""
        if discrete != self.policy.discrete:
            raise ConfigError(
                f"policy {type(self.policy).__name__} does not fit the action space {space}; allowed: "
                f"{'a categorical' if discrete else 'a Gaussian'} policy"
            )
        kind = "categorical" if discrete else "gaussian"
        kinds = getattr(self.mstep, "kinds", (kind,))
        if kind not in kinds:
            raise ConfigError(
                f"M-step {type(self.mstep).__name__} is for {' or '.join(kinds)} policies, the action space "
                f"{space} needs a {kind} one; allowed: a projection whose kinds include {kind!r}"
            )

    @property
    def signals(self) -> int:
        """S = 1 + M."""
        return 1 + len(self.cost_limits)
