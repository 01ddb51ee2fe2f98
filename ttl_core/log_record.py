"""What was logged: the values of one call of `loop.log`, and their conversion to Python numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch

_NUMBERS = (int, float)  # a tuple: `int | float` would be created for each value


class LogRecord:
    """The values of one call of `loop.log`, at one step.

    All loggers of a loop share it, so that its values are converted once.

    Args:
        logged: all values by name, as they were logged.
        level: "batch" or "epoch".
        step: the value of `loop.global_step`.
        epoch: the value of `loop.epoch_num`.
        seconds: when it was logged, in seconds since 1970.

    Attributes:
        level: as given.
        step: as given.
        epoch: as given.
        time: `seconds`.
        values: the values that are single numbers, by name, as int or float.
        others: the other values by name, such as texts, images and None, as they were logged.
    """

    __slots__ = ("_logged", "epoch", "level", "others", "step", "time", "values")

    def __init__(
        self, logged: Mapping[str, Any], level: str, step: int, epoch: int, seconds: float
    ) -> None:
        self.level = level
        self.step = step
        self.epoch = epoch
        self.time = seconds
        self.values: dict[str, int | float] = {}
        self.others: dict[str, Any] = {}
        self._logged: Mapping[str, Any] | None = logged  # until it is converted


def convert(records: Iterable[LogRecord]) -> None:
    """Convert the values of records to Python numbers, waiting for each device once.

    Args:
        records: the records; those that are converted already stay as they are.
    """
    waiting: dict[Any, list[tuple[LogRecord, str, torch.Tensor]]] = defaultdict(list)
    for record in records:
        logged, record._logged = record._logged, None
        values = record.values
        for name, value in (logged or {}).items():
            # most are of this type; asking whether it is an instance of it takes torch longer
            if type(value) is torch.Tensor or isinstance(value, torch.Tensor):
                if value.numel() != 1 or value.is_complex():
                    record.others[name] = value
                elif value.is_cpu:  # reading each costs less than stacking them
                    values[name] = +value.item()
                else:
                    values[name] = 0  # keeps the order of names
                    waiting[value.device, value.dtype].append((record, name, value))
                continue
            number = value
            if getattr(value, "size", None) == 1 and hasattr(value, "item"):  # of NumPy
                number = value.item()
            if isinstance(number, _NUMBERS):
                values[name] = +number  # a bool as 0 or 1
            else:
                record.others[name] = value
    for found in waiting.values():
        numbers = torch.stack([value.reshape(()) for _, _, value in found]).tolist()
        for (record, name, _), number in zip(found, numbers, strict=True):
            record.values[name] = +number
