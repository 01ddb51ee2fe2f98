"""Comparisons of what single components change: `python -m ttl_compare` is `ttl compare`."""

from ttl_trials import Comparison, compare

__all__ = ["Comparison", "compare"]
