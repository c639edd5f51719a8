"""Runs: training in a folder of configuration, versions, metrics and checkpoints, which can be resumed exactly."""

from cvpo.run.config import RunConfig, configure, from_options, read_options
from cvpo.run.folder import RunFolder
from cvpo.run.measure import Score
from cvpo.run.session import Result, resume, train
from cvpo.run.setting import load_config
from cvpo.run.together import resume_together, train_together

__all__ = [
    "Result",
    "RunConfig",
    "RunFolder",
    "Score",
    "configure",
    "from_options",
    "load_config",
    "read_options",
    "resume",
    "resume_together",
    "train",
    "train_together",
]
