"""Engines that sample completions from the policy, behind one protocol."""

from sps.config import RolloutSettings
from sps.policy import Policy
from sps.rollout.protocol import Engine


def make_engine(policy: Policy, settings: RolloutSettings, own_copy: bool = False) -> Engine:
    """The engine that the settings name, with the policy's weights.

    Args:
        own_copy: the transformers engine keeps whole weights of its own, as it must where the policy's are sharded.

    Raises:
        ValueError: the engine is not installed, or its settings do not do.
    """
    if settings.engine == "vllm":
        from sps.rollout.vllm_engine import VllmEngine

        return VllmEngine(policy, settings)
    if settings.engine == "vllm-server":
        from sps.rollout.vllm_server import VllmServer

        return VllmServer(policy, settings)
    from sps.rollout.transformers_engine import TransformersEngine

    return TransformersEngine(policy, settings, own_copy)
