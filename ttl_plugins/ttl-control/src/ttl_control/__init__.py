"""Flow control for ttl: when a run ends, what it validates, and how much of its data it sees."""

from ttl_control.early_stopping import EarlyStopping
from ttl_control.limit_batches import LimitBatches
from ttl_control.nan_guard import NanGuard
from ttl_control.overfit_batch import OverfitBatch
from ttl_control.rollback import Rollback
from ttl_control.time_limit import TimeLimit
from ttl_control.validate_every import ValidateEvery

__all__ = [
    "EarlyStopping",
    "LimitBatches",
    "NanGuard",
    "OverfitBatch",
    "Rollback",
    "TimeLimit",
    "ValidateEvery",
]
