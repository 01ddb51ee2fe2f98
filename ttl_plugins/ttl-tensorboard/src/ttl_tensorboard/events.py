"""The events of TensorBoard. To import this module takes a second: it imports tensorboard."""

from __future__ import annotations

import copy
import json
import math
import struct
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from torch.utils.tensorboard import summary
from torch.utils.tensorboard._pytorch_graph import graph

from ttl_core import LogRecord
from ttl_tensorboard.event_file import framed
from ttl_tensorboard.histograms import Histogram

_STATUS = {
    "complete": api_pb2.STATUS_SUCCESS,
    "failed": api_pb2.STATUS_FAILURE,
    "interrupted": api_pb2.STATUS_UNKNOWN,
}
_MAX_ENCODERS = 100
Skip = Callable[[str, str], None]


class Encoder:
    """An encoder of records.

    Args:
        skip: is called with the name of a value that has no event, and the reason.
    """

    def __init__(self, skip: Skip) -> None:
        self._skip = skip
        self._numbers: dict[tuple[str, ...], _NumbersEncoder] = {}  # by the names of values
        self._place = Event()  # the time and step of an event

    def encode(self, record: LogRecord) -> bytes:
        """Return a record as it is in the file: an event with all its numbers, one for the others.

        Args:
            record: the record.
        """
        numbers = self._encode_numbers(record) if record.values else b""
        if not record.others:
            return numbers
        shown = Summary()
        for name, value in record.others.items():
            shown.value.extend(_summary_of(_valid(name), value, self._skip).value)
        return numbers + (_event(shown, record.step, record.time) if shown.value else b"")

    def _encode_numbers(self, record: LogRecord) -> bytes:
        names = tuple(record.values)
        encoder = self._numbers.get(names)
        if encoder is None:
            if len(self._numbers) >= _MAX_ENCODERS:  # of names that do not come again
                self._numbers.clear()
            self._numbers[names] = encoder = _NumbersEncoder(names)
        self._place.wall_time, self._place.step = record.time, record.step
        place = self._place.SerializeToString()
        try:
            return framed(place + encoder.encode(record.values.values()))
        except (OverflowError, struct.error):  # the latter for an integer
            numbers = [self._single(name, number) for name, number in record.values.items()]
            return framed(place + encoder.encode(numbers))

    def _single(self, name: str, number: float) -> float:
        """Return a number that single precision can hold, or infinity."""
        try:
            struct.pack("<f", float(number))
        except OverflowError:
            if isinstance(number, int):
                self._skip(name, "an integer is beyond the range of float")
            return math.inf if number > 0 else -math.inf
        return number


class _NumbersEncoder:
    """An encoder of numbers with the same names.

    All bytes but those of the numbers are always the same, so that protobuf, which takes several
    times as long, is asked for them once.

    Args:
        names: the names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        values = [Summary.Value(tag=_valid(name), simple_value=0.0) for name in names]
        # the message of a value ends in the four bytes of its number
        parts = [Summary(value=[value]).SerializeToString()[:-4] for value in values]
        event = Event(summary=Summary(value=values)).SerializeToString()
        parts[0] = event[: len(event) - sum(len(part) + 4 for part in parts[1:]) - 4]
        self._cells: list[Any] = [cell for part in parts for cell in (part, 0.0)]
        self._pack = struct.Struct("<" + "".join(f"{len(part)}sf" for part in parts)).pack

    def encode(self, numbers: Iterable[float]) -> bytes:
        """Return the part of an event that holds its numbers.

        Args:
            numbers: one for each name.

        Raises:
            OverflowError: single precision cannot hold one.
            struct.error: it cannot hold an integer.
        """
        self._cells[1::2] = numbers
        return self._pack(*self._cells)


def begin(step: int | None) -> bytes:
    """Return the events that begin a file, or a part of it.

    Args:
        step: the step from which on readers hide all earlier events; None to hide none.
    """
    events = [Event(wall_time=time.time(), file_version="brain.Event:2")]
    if step is not None:
        log = SessionLog(status=SessionLog.START)
        events.append(Event(wall_time=time.time(), step=step, session_log=log))
    return b"".join(framed(event.SerializeToString()) for event in events)


def describe_run(
    configuration: Mapping[str, Any], manifest: Sequence[Mapping[str, Any]], step: int
) -> bytes:
    """Return the configuration as hyperparameters, and it and the manifest as text.

    Args:
        configuration: single values by name.
        manifest: what `loop.manifest()` returns.
        step: the step with which the run begins or resumes.
    """
    rows = "".join(f"| {name} | `{value}` |\n" for name, value in configuration.items())
    now = time.time()
    # No experiment is declared, so that TensorBoard takes all scalars as metrics of the run.
    start = SessionStartInfo(start_time_secs=now)
    for name, value in configuration.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[name].number_value = value
        elif value is not None:
            start.hparams[name].string_value = value
    shown = _hyperparameters(metadata.SESSION_START_INFO_TAG, session_start_info=start)
    for tag, text in {
        "configuration": f"| argument | value |\n|---|---|\n{rows}",
        "manifest": f"```\n{json.dumps(manifest, indent=2)}\n```",
    }.items():
        shown.value.extend(summary.text(tag, text).value)
    return _event(shown, step, now)


def describe_end(status: str, step: int) -> bytes:
    """Return how the run has ended.

    Args:
        status: the status that `Logger.close` gets.
        step: the step at which it has ended.
    """
    now = time.time()
    end = SessionEndInfo(status=_STATUS[status], end_time_secs=now)
    shown = _hyperparameters(metadata.SESSION_END_INFO_TAG, session_end_info=end)
    return _event(shown, step, now)


def describe_model(model: torch.nn.Module, inputs: Any, skip: Skip) -> bytes:
    """Return the graph of a model, which is traced as in validation, on a copy of it.

    Args:
        model: the model.
        inputs: its arguments, a tensor or a tuple.
        skip: is called if the model cannot be traced.
    """
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")  # torch's own, that torch.jit is deprecated
            device = next((p.device for p in model.parameters()), torch.device("cpu"))
            traced = copy.deepcopy(model).eval()
            moved = torch.utils._pytree.tree_map_only(
                torch.Tensor, lambda value: value.to(device), inputs
            )
            definition, _ = graph(traced, moved)
    except Exception as error:  # tracing runs code of the model, which raises anything
        skip("graph", f"the model cannot be traced: {error}")
        return b""
    return framed(
        Event(wall_time=time.time(), graph_def=definition.SerializeToString()).SerializeToString()
    )


def _hyperparameters(tag: str, **info: Any) -> Any:
    about = metadata.create_summary_metadata(HParamsPluginData(**info))
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])


def _summary_of(name: str, value: Any, skip: Skip) -> Any:
    """Return the summary of a value that is no number; an empty one if it has none."""
    if isinstance(value, str):
        return summary.text(name, value)
    if isinstance(value, Histogram):
        return summary.histogram_raw(name, **vars(value))
    try:
        image = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):  # no array, as None
        image = torch.empty(0)
    if image.dim() in (3, 4) and image.shape[-3] in (1, 3, 4) and image.numel():
        kind = "NCHW" if image.dim() == 4 else "CHW"
        if image.dtype != torch.uint8:
            image = image.float().nan_to_num()
        return summary.image(name, image, dataformats=kind)
    skip(name, f"a {type(value).__name__} is no number, text, or image of shape (C, H, W)")
    return Summary()


def _valid(name: str) -> str:
    """Return a name without what protobuf refuses, unpaired surrogates."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def _event(shown: Any, step: int, seconds: float) -> bytes:
    return framed(Event(wall_time=seconds, step=step, summary=shown).SerializeToString())
