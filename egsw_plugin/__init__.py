"""Entropy-guided credit weighting for LLM reinforcement learning, as a plugin for verl."""

__version__ = "0.1.0"
