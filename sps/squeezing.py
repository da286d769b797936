"""How far the policy's probability is squeezed onto a few of its own correct solutions, from one step's groups.

The distribution over what is distinct is the one that steers (objectives/irl.py), but of whole probabilities whatever
the steering, and every run logs it. A group with fewer than two correct rollouts says nothing of how correct ones share
their probability: its share would be 1 because the problem is hard, and it is left out of those two means.
"""

from collections.abc import Mapping, Sequence

from sps.config import SteeringSettings
from sps.objectives.clusters import by_key
from sps.objectives.irl import Demonstrations, steering_coefficients, support


def squeezing_sums(
    groups: Sequence[Demonstrations], keys: Sequence[Sequence[str | None]], settings: SteeringSettings
) -> dict[str, float]:
    """Sums over groups that add up over processes; give their total to `squeezing_means`.

    groups: each prompt's own rollouts, without replayed ones. keys: each rollout's canonical form or None, in the same
    order. Clusters are those of the settings; the support is always the correct rollouts and the length exponent 0, so
    that runs with different steering can be compared.

    Raises:
        ValueError: a completion has no tokens.
    """
    correct_only = settings.model_copy(update={"support": "correct", "length_exponent": 0.0})
    sums = dict.fromkeys(("top_share", "effective_number", "measured", "distinct_correct", "distinct_keys"), 0.0)
    for group, group_keys in zip(groups, keys, strict=True):
        members = support(group, correct_only)
        sums["distinct_correct"] += len(members)
        sums["distinct_keys"] += len(set(by_key([group.texts[i] for i in members], [group_keys[i] for i in members])))
        if int(group.correct.sum()) >= 2:
            measured = steering_coefficients(group, correct_only)
            sums["measured"] += 1
            sums["top_share"] += measured.top_share
            sums["effective_number"] += measured.effective
    return sums | {"groups": float(len(groups))}


def squeezing_means(sums: Mapping[str, float]) -> dict[str, float | None]:
    """What is logged: top_share, effective_number, distinct_correct, distinct_keys; None where nothing was measured.

    The first two are means over groups with at least two correct rollouts, the others over all groups.
    """
    return {
        name: sums[name] / sums[over] if sums[over] else None
        for name, over in (
            ("top_share", "measured"),
            ("effective_number", "measured"),
            ("distinct_correct", "groups"),
            ("distinct_keys", "groups"),
        )
    }
