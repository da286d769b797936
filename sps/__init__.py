"""sps: reinforcement interleaved with inverse reinforcement learning."""
