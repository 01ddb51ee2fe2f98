"""The events of TensorBoard. To import this module takes a second: it imports tensorboard."""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
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
Skip = Callable[[str, str], None]


class Encoder:
    """An encoder of records, which uses its message again for the next record with the same names.

    Args:
        skip: is called with the name of a value that has no event, and the reason.
    """

    def __init__(self, skip: Skip) -> None:
        self._skip = skip
        self._names: list[str] | None = None
        self._event = Event()

    def encode(self, record: LogRecord) -> bytes:
        """Return a record as it is in the file: an event with all its numbers, one for the others.

        Args:
            record: the record.
        """
        numbers = self._scalars(record) if record.values else b""
        if not record.others:
            return numbers
        shown = Summary()
        for name, value in record.others.items():
            shown.value.extend(_summary_of(_valid(name), value, self._skip).value)
        return numbers + (_event(shown, record.step, record.time) if shown.value else b"")

    def _scalars(self, record: LogRecord) -> bytes:
        names = list(record.values)
        event = self._event
        if names != self._names:
            values = [Summary.Value(tag=_valid(name)) for name in names]
            self._event = event = Event(summary=Summary(value=values))
            self._names = names
        event.wall_time = record.time
        event.step = record.step
        for value, (name, number) in zip(event.summary.value, record.values.items(), strict=True):
            try:
                value.simple_value = number
            except OverflowError:
                self._skip(name, "an integer is beyond the range of float")
                value.simple_value = float("inf") if number > 0 else float("-inf")
        return framed(event.SerializeToString())


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
