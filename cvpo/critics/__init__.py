"""Critics: Q-values of all signals at once, their targets, and the cost limits in the scale of Q."""

from cvpo.critics.limits import CostLimit, limits
from cvpo.critics.protocol import Critic, registry
from cvpo.critics.returns import Returns, returns
from cvpo.critics.schedules import LimitSchedule, schedules

__all__ = ["CostLimit", "Critic", "LimitSchedule", "Returns", "limits", "registry", "returns", "schedules"]
