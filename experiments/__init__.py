"""Reproductions, comparisons and benchmarks; they may import everything and nothing imports them but tests."""
