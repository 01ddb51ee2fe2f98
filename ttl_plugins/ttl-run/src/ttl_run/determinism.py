"""The switches with which torch computes the same bits each time."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from torch.utils.data import DataLoader

from ttl_core import DataWrapper

_log = logging.getLogger(__name__)
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


class Determinism:
    """The switches of torch for determinism, and what they were before.

    Args:
        warn_only: whether an operation without a deterministic implementation is a warning of
            torch's, and not an error.
    """

    def __init__(self, *, warn_only: bool = True) -> None:
        self._warn_only = warn_only
        self._before: tuple[bool, bool, bool, bool] | None = None

    def enable(self) -> None:
        """Set the switches, and say where that is too late."""
        cudnn: Any = torch.backends.cudnn
        self._before = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            cudnn.deterministic,
            cudnn.benchmark,
        )
        torch.use_deterministic_algorithms(True, warn_only=self._warn_only)
        cudnn.deterministic, cudnn.benchmark = True, False
        if _CUBLAS not in os.environ:
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                _log.warning(
                    "seed: matrix products on CUDA may differ from run to run, as CUDA was "
                    "initialized before %s was set. Set it in the shell, as %s=:4096:8, or call "
                    "ttl_run.seed_all(..., deterministic=True) before the model is created",
                    _CUBLAS,
                    _CUBLAS,
                )
            # it stays set: cuBLAS reads it once, when it is initialized
            os.environ[_CUBLAS] = ":4096:8"

    def restore(self) -> None:
        """Set the switches to what they were before `enable()`, if that was called."""
        if self._before is not None:
            enabled, warn_only, deterministic, benchmark = self._before
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
            torch.backends.cudnn.deterministic = deterministic
            torch.backends.cudnn.benchmark = benchmark
            self._before = None


def doubts_about(data: object) -> list[str]:
    """Return what about data may make a run differ from another one with the same seed.

    Args:
        data: the data of a loop; only a DataLoader with workers, also one that is wrapped, is
            known.

    Example:
        >>> doubts_about(DataLoader([0], num_workers=2, worker_init_fn=print))
        ['its worker_init_fn runs after torch has seeded a worker: it has to seed nothing anew']
    """
    while isinstance(data, DataWrapper):
        data = data.wrapped_data
    if not isinstance(data, DataLoader) or not data.num_workers:
        return []
    doubts = []
    if data.worker_init_fn is not None:
        doubts.append(
            "its worker_init_fn runs after torch has seeded a worker: it has to seed nothing anew"
        )
    if data.num_workers > 1 and not getattr(data, "in_order", True):
        doubts.append("its batches come in the order in which workers finish: in_order=False")
    return doubts
