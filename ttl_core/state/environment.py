"""What the bits of a run depend on besides its state: releases, threads and devices."""

from __future__ import annotations

import platform
import warnings

import torch

from ttl_core.arguments import user_stacklevel
from ttl_core.state.protocol import State


def environment() -> State:
    """Return what the bits of a run depend on, besides its state."""
    on_gpu = torch.cuda.is_available()
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
    }


def warn_of_another_environment(saved: State) -> None:
    """Warn if what the bits of a run depend on is not what it was.

    Args:
        saved: what `environment` returned when the state was taken.
    """
    changed = [
        f"{what} {saved[what]}, now {now}"
        for what, now in environment().items()
        if now != saved[what]
    ]
    if changed:
        warnings.warn(
            "the run resumes, but may differ in bits from one that was not interrupted: "
            f"{'; '.join(changed)}",
            UserWarning,
            stacklevel=user_stacklevel(),
        )
