"""Trials beside a run for ttl, which leave it as it is: on a fork, or from a state of the run."""

from ttl_trials.batch_size_finder import BatchSizeFinder
from ttl_trials.compare import Comparison, compare
from ttl_trials.lr_finder import LrFinder
from ttl_trials.replay_check import ReplayCheck

__all__ = ["BatchSizeFinder", "Comparison", "LrFinder", "ReplayCheck", "compare"]
