"""Simulated traffic over judged collections, and the stand-in for strong LLM annotators."""

from serm.simulate.log import SimulationSummary, simulate
from serm.simulate.standin import StandIn
from serm.simulate.traffic import arrival_values, stream

__all__ = ["SimulationSummary", "StandIn", "arrival_values", "simulate", "stream"]
