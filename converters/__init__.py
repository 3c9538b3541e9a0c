"""PyTorch checkpoints to Flax variables and back, without running anything that a file contains."""

from jaxunlearn import _signals  # noqa: F401  (an interruption ends a program that still imports the rest)
