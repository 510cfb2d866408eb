"""CLEANER: reinforcement learning of tool-using language models on self-purified trajectories, on top of verl."""

__version__ = "0.1.0"
