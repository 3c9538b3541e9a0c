"""PyTorch checkpoints to Flax variables and back, without running anything that a file contains."""
