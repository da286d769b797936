"""KL to a reference policy, estimated at sampled tokens; what matters is each estimator's gradient, not its value.

Names follow Schulman, "Approximating KL divergence" (2020). The gradients are for tokens sampled from the policy π
itself and hold at each token given what precedes it; how earlier tokens change later states is not in them.
"""

from typing import Literal

from torch import Tensor

from sps.objectives.policy_gradient import LARGEST_LOG


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log π - log ref at every token (N,): unbiased for KL(π ‖ ref), but its gradient is 0 in expectation.

    E_π[∇ log π] = 0, so that as a loss it is noise; it serves as a measure, or inside the reward.
    """
    return logprobs - reference_logprobs


def k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """(log π - log ref)² / 2 at every token (N,): a biased value whose expected gradient is that of KL(π ‖ ref)."""
    return (logprobs - reference_logprobs).square() / 2


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """ref / π - 1 - log(ref / π) at every token (N,): unbiased for KL(π ‖ ref), and never negative.

    Its expected gradient is that of the other direction, KL(ref ‖ π). GRPO's estimator (2402.03300, Eq. 4).
    """
    log_ratio = reference_logprobs - logprobs
    return log_ratio.clamp(max=LARGEST_LOG).exp() - 1 - log_ratio


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


def kl_loss(
    logprobs: Tensor, reference_logprobs: Tensor, weights: Tensor, estimator: Literal["k1", "k2", "k3"]
) -> Tensor:
    """Weighted sum (scalar) of an estimator over tokens: log-probabilities (N,), weights (N,); the reference detached.

    The caller multiplies by kl_coefficient.
    """
    return (weights * ESTIMATORS[estimator](logprobs, reference_logprobs.detach())).sum()
