"""The global random numbers of Python, NumPy and torch."""

from __future__ import annotations

import random
import sys
from array import array
from typing import Any

import torch

from ttl_core.state.protocol import State

_DEVICES = ("cuda", "xpu", "mps")
_N_KEYS = 624  # of a Mersenne Twister


def random_state() -> State:
    """Return the states of the global random numbers of Python, NumPy, torch and its devices."""
    devices = {}
    for name in _DEVICES:
        device = getattr(torch, name, None)
        if device is not None and device.is_available():
            devices[name] = _states_of(device)
    numpy = sys.modules.get("numpy")
    version, internal, gauss = random.getstate()
    return {
        # tensors, as saving hundreds of numbers one by one takes longer than all the rest
        "python": (version, torch.frombuffer(array("q", internal), dtype=torch.int64), gauss),
        "numpy": _numpy_state(numpy) if numpy else None,
        "torch": torch.get_rng_state(),
        "devices": devices,
    }


def restore_random(saved: State) -> None:
    """Restore the global random numbers. Everything that draws from them has to exist already.

    Args:
        saved: what `random_state` returned.
    """
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(_numbers(internal)), gauss))
    torch.set_rng_state(saved["torch"])
    for name, states in saved["devices"].items():
        device = getattr(torch, name, None)
        if device is not None and device.is_available():
            _set_states_of(device, states)
    if saved["numpy"] is not None:
        _set_numpy_state(saved["numpy"])


def _states_of(device: Any) -> list[torch.Tensor]:
    if hasattr(device, "get_rng_state_all"):
        return list(device.get_rng_state_all())
    return [device.get_rng_state()]


def _set_states_of(device: Any, states: list[torch.Tensor]) -> None:
    if hasattr(device, "set_rng_state_all"):
        device.set_rng_state_all(states[: device.device_count()])
    else:
        device.set_rng_state(states[0])


def _numpy_state(numpy: Any) -> State:
    kind, keys, position, has_gauss, gauss = numpy.random.get_state()
    return {
        "kind": kind,
        "keys": torch.from_numpy(keys.astype("int64")),
        "position": int(position),
        "has_gauss": int(has_gauss),
        "gauss": float(gauss),
    }


def _set_numpy_state(saved: State) -> None:
    try:
        import numpy
    except ImportError:  # then nothing draws from it here
        return
    keys, position = _numbers(saved["keys"]), saved["position"]
    # NumPy takes any, and reads memory that is not its own when it draws
    is_sound = len(keys) == _N_KEYS and type(position) is int and 0 <= position <= _N_KEYS
    if saved["kind"] != "MT19937" or not is_sound:
        raise ValueError(f"NumPy has no state of {len(keys)} keys at position {position!r}")
    numpy.random.set_state((saved["kind"], keys, position, saved["has_gauss"], saved["gauss"]))


def _numbers(values: Any) -> Any:
    """Return whole numbers as a sequence; in states of earlier versions they are one."""
    return values.tolist() if isinstance(values, torch.Tensor) else values
