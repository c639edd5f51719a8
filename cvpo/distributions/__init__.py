"""Action distributions and their KL divergences, computed without cancellation.

Shape legend: leading ``...`` independent problems, ``B`` states, ``K`` particles, ``D`` action dimensions, ``n``
discrete actions. A Gaussian's ``scale`` is ``[...,B,D]`` (standard deviations) or ``[...,B,D,D]`` (lower Cholesky
factor): the number of dimensions decides which. Functions take and return tensors; the two records hold parameters.
"""

from cvpo.distributions.categorical import Categorical, categorical_kl, categorical_log_prob, probability_kl
from cvpo.distributions.gaussian import (
    Gaussian,
    colour,
    covariance_kl,
    diagonal,
    gaussian_log_prob,
    log_volume,
    mean_kl,
    scale_tril,
    whiten,
)
from cvpo.distributions.kl import log_ratio, phi, same_kind, scale_term

Distribution = Gaussian | Categorical

__all__ = [
    "Categorical",
    "Distribution",
    "Gaussian",
    "categorical_kl",
    "categorical_log_prob",
    "colour",
    "covariance_kl",
    "diagonal",
    "gaussian_log_prob",
    "log_ratio",
    "log_volume",
    "mean_kl",
    "phi",
    "probability_kl",
    "same_kind",
    "scale_term",
    "scale_tril",
    "whiten",
]
