"""Keeping a workspace running: what is wrong with it, and how to go on with a round that died."""
