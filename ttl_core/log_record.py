"""What was logged: the values of one call of `loop.log`, and their conversion to Python numbers."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop

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


class _Newest(threading.local):
    """What a thread has logged last, and its record."""

    logged: Mapping[str, Any] | None = None
    record: LogRecord


_newest = _Newest()


def shared_record(loop: TrainTestLoop, logged: Mapping[str, Any], level: str) -> LogRecord:
    """Return the record of a call of `loop.log`, the same one to all loggers.

    Args:
        loop: the loop.
        logged: the values by name, the very object that `on_log` was given.
        level: "batch" or "epoch".
    """
    newest, step = _newest, loop.global_step
    if newest.logged is not logged or newest.record.step != step or newest.record.level != level:
        newest.logged = logged
        newest.record = LogRecord(logged, level, step, loop.epoch_num, time.time())
    return newest.record


def convert(records: Iterable[LogRecord]) -> None:
    """Convert the values of records to Python numbers, waiting for each device once.

    Loggers in several threads may convert a record at the same time: each sets all of its values at
    once, the same ones, and then says that it is converted.

    Args:
        records: the records; those that are converted already stay as they are.
    """
    # one function: a call for each record would take a tenth of its time
    waiting: dict[Any, list[tuple[dict[str, Any], str, torch.Tensor]]] = defaultdict(list)
    found: list[tuple[LogRecord, dict[str, Any], dict[str, Any]]] = []
    for record in records:
        logged = record._logged
        if logged is None:
            continue
        values: dict[str, int | float] = {}
        others: dict[str, Any] = {}
        found.append((record, values, others))
        for name, value in logged.items():
            number = value
            # most are of this type; asking whether it is an instance of it takes torch longer
            if type(value) is torch.Tensor or isinstance(value, torch.Tensor):
                if value.is_cpu:  # reading each costs less than stacking them
                    try:
                        number = value.item()
                    except RuntimeError:  # it has several
                        others[name] = value
                        continue
                elif value.numel() == 1 and not value.is_complex():
                    values[name] = 0  # keeps the order of names
                    waiting[value.device, value.dtype].append((values, name, value))
                    continue
            elif type(value) is not float and getattr(value, "size", None) == 1:  # of NumPy
                number = value.item() if hasattr(value, "item") else value
            if type(number) is float:
                values[name] = number
            elif isinstance(number, _NUMBERS):
                values[name] = +number  # a bool as 0 or 1
            else:
                others[name] = value
    for items in waiting.values():
        numbers = torch.stack([value.reshape(()) for _, _, value in items]).tolist()
        for (values, name, _), number in zip(items, numbers, strict=True):
            values[name] = +number
    for record, values, others in found:
        record.values = values
        if others:
            record.others = {**record.others, **others}
        record._logged = None
