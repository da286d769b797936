"""What every logged figure means: one table, which pages use for captions and from which the glossary is made."""

METRICS: dict[str, str] = {
    # rewards of the step's rollouts
    "step": "Number of the training step, from 1; evaluations have a step 0 too, before training.",
    "reward_mean": "Mean reward of the step's rollouts that have one.",
    "reward_std": "Standard deviation of the reward over the step's rollouts, within and between prompts.",
    "correct_share": "Share (0 to 1) of the step's rollouts that the task calls correct: Pass@1 on training prompts.",
    "reward_missing": "Rollouts without a usable reward, counted by reason: raised, timeout, not a number, or empty "
    "(no token); they take no part in training.",
    "truncated_share": "Share (0 to 1) of the step's rollouts cut at the token limit.",
    "length_mean": "Mean length of the step's rollouts, in tokens, the end-of-sequence token included.",
    # groups
    "groups_used": "Prompts whose rollouts the step trained on.",
    "groups_flat": "Prompts used whose rollouts all had the same reward, and so no advantage.",
    "groups_replaced": "Prompts that dynamic sampling replaced because their rewards were all equal.",
    "prompts_too_long": "Training prompts set aside before training because they leave no room for a completion.",
    # losses, as they enter the sum, averaged over the step's optimiser steps
    "loss_policy": "Clipped policy-gradient loss; its gradient is what matters, its value hovers around 0 on policy.",
    "loss_kl": "KL penalty to the initial policy, in nats times its coefficient.",
    "loss_kl_cov": "KL penalty on the few tokens that KL-Cov holds back, in nats times its coefficient.",
    "loss_entropy": "Entropy bonus, in nats times its coefficient; negative, since it is subtracted.",
    "loss_forward_kl": "Negative log-likelihood of the initial policy's right completions, in nats a token times its "
    "coefficient.",
    # the optimiser
    "gradient_norm": "L2 norm of the gradient before clipping, at the step's last optimiser step.",
    "learning_rate": "Learning rate of the step.",
    "updates": "Optimiser steps that the step took.",
    # distance from other policies
    "entropy": "Mean entropy of the policy's next-token distribution over the step's tokens, in nats a token.",
    "kl_to_initial": "Estimated KL of the policy to the initial one on the step's rollouts, in nats a token.",
    "ratio_mean": "Mean probability ratio of the policy to the one that the step began with; 1 on policy.",
    "ratio_max": "Largest such ratio of any token (or completion) in the step.",
    "clipped_share": "Share (0 to 1) of tokens whose ratio was clipped, so that they gave no gradient.",
    "importance_mean": "Mean ratio of the trainer's probability to the sampler's, before truncation; 1 if they agree.",
    "importance_max": "Largest such ratio; far above 1 the sampler's numbers or weights are not the trainer's.",
    "capped_share": "Share (0 to 1) of tokens whose importance ratio was truncated.",
    # squeezing
    "top_share": "Share (0 to 1) of the likeliest among a prompt's distinct correct rollouts, by the policy's own "
    "probability of the whole completion; mean over prompts with at least two correct.",
    "effective_number": "How many equally likely correct solutions would be as spread out: exp of the entropy of the "
    "same shares, from 1; mean over the same prompts.",
    "distinct_correct": "Different correct texts in a prompt's rollouts, mean over prompts.",
    "distinct_keys": "Different ways to solve (the task's key, else the text) among a prompt's correct rollouts, mean "
    "over prompts.",
    # steering
    "steered": "1 where the step carried the IRL loss, else 0.",
    "prompts_steered": "Prompts with at least two distinct demonstrations, which the IRL loss could weigh.",
    "irl_kl": "KL from the demonstrations' distribution to the policy's own, over a prompt's demonstrations, in nats; "
    "mean over prompts steered.",
    # speed
    "tokens": "Completion tokens sampled in the step, over all processes.",
    "tokens_per_second": "Completion tokens sampled in the step over its whole wall time, all processes together.",
    "seconds_sampling": "Wall time of sampling, in seconds, mean over processes.",
    "seconds_judging": "Wall time of judging, in seconds, mean over processes.",
    "seconds_training": "Wall time of scoring and optimiser steps, in seconds.",
}


def glossary() -> str:
    """The table as Markdown."""
    rows = [f"| `{name}` | {meaning} |" for name, meaning in METRICS.items()]
    return "\n".join(["| figure | meaning |", "|---|---|", *rows]) + "\n"
