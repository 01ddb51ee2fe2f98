"""Optimization for ttl: accumulation, clipping, averaged weights, freezing, warm-up, fast steps."""

from ttl_optim.ema import Ema
from ttl_optim.fast_optimizer import FastOptimizer
from ttl_optim.freeze import Freeze
from ttl_optim.grad_accumulation import GradAccumulation
from ttl_optim.grad_clip import GradClip
from ttl_optim.lr_schedule import LrSchedule
from ttl_optim.lr_warmup import LrWarmup
from ttl_optim.param_groups import ParamGroups
from ttl_optim.sam import Sam
from ttl_optim.swa import Swa

__all__ = [
    "Ema",
    "FastOptimizer",
    "Freeze",
    "GradAccumulation",
    "GradClip",
    "LrSchedule",
    "LrWarmup",
    "ParamGroups",
    "Sam",
    "Swa",
]
