"""Removes backdoors from image classifiers: published unlearning methods as pure JAX functions."""

__version__ = "0.1.0"
