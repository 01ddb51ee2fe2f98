"""Traces and operators of some batches."""

import json
import logging

import pytest
from ttl_profile import Profiler

from ttl_core import ArgumentError, LoopComponent, RunError, TrainTestLoop, use
from ttl_core.testing import ComponentConformance, Step


class At(LoopComponent):
    """A component that calls a function at the end of one batch."""

    def __init__(self, batch, act):
        self.batch = batch
        self.act = act

    def on_batch_end(self, loop):
        if loop.is_training and loop.batch_num == self.batch:
            self.act(loop)


def make_loop(*components, n_batches=10):
    """Return a loop that trains a small model."""
    data = ComponentConformance.make_data(n_batches)
    return TrainTestLoop(ComponentConformance.make_model(), [*components, Step()], data, data[:1])


def names_in(directory):
    """Return the names of the files in a directory."""
    return sorted(path.name for path in directory.iterdir())


def steps_in(trace):
    """Return the names of the steps in a trace."""
    events = json.loads(trace.read_text())["traceEvents"]
    return {event["name"] for event in events if event["name"].startswith("ProfilerStep")}


def test_the_schedule_decides_which_batches_are_recorded(tmp_path):
    """A trace and a table for each cycle, and none after the last one."""
    profiler = Profiler(tmp_path, skip_first=1, wait=1, warmup=1, active=2, repeat=2)
    make_loop(profiler).train(2)
    assert names_in(tmp_path) == [
        "operators-3-4.txt",
        "operators-7-8.txt",
        "trace-3-4.json",
        "trace-7-8.json",
    ]
    assert {"ProfilerStep#3", "ProfilerStep#4"} == steps_in(profiler.traces[0])
    assert {"ProfilerStep#7", "ProfilerStep#8"} == steps_in(profiler.traces[1])


def test_without_an_end_it_records_until_the_run_ends(tmp_path):
    """repeat=0: as many cycles as there are batches."""
    profiler = Profiler(tmp_path, wait=2, warmup=1, active=1, repeat=0)
    make_loop(profiler, n_batches=9).train(1)
    assert ["trace-3-3.json", "trace-7-7.json"] == [path.name for path in profiler.traces]


def test_the_table_and_the_log_name_operators(tmp_path, caplog):
    """The slowest ones, with their time."""
    caplog.set_level(logging.INFO)
    make_loop(Profiler(tmp_path, wait=0, warmup=1, active=1, n_rows=5)).train(1)
    table = (tmp_path / "operators-1-1.txt").read_text()
    assert "Self CPU" in table
    assert "aten::" in table
    assert "profiler: batches 1-1: " in caplog.text
    assert str(tmp_path / "trace-1-1.json") in caplog.text


def test_options_are_recorded(tmp_path):
    """Shapes, memory and FLOPs have columns of their own."""
    options = {"memory": True, "shapes": True, "flops": True, "stack": True}
    make_loop(Profiler(tmp_path, wait=0, warmup=1, active=1, **options)).train(1)
    table = (tmp_path / "operators-1-1.txt").read_text()
    assert "CPU Mem" in table
    assert "Input Shapes" in table
    assert "FLOPs" in table


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_what_is_being_recorded_is_written_when_the_run_ends(tmp_path, how):
    """Named by the batches that had ended; the next run can be profiled."""

    def end(loop):
        if how == "stopped":
            loop.stop()
        raise ValueError("bad")

    profiler = Profiler(tmp_path, wait=1, warmup=1, active=5)
    loop = make_loop(profiler, At(3, end))
    if how == "stopped":
        loop.train(1)
    else:
        with pytest.raises(ValueError, match="bad"):
            loop.train(1)
    assert ["trace-2-2.json"] == [path.name for path in profiler.traces]
    assert {"ProfilerStep#2", "ProfilerStep#3"} == steps_in(profiler.traces[0])
    del loop.components["at"]
    loop.train(1)
    assert "trace-2-6.json" == profiler.traces[-1].name


def test_a_run_that_ends_before_a_cycle_writes_nothing(tmp_path):
    """Nothing was recorded."""
    make_loop(Profiler(tmp_path, wait=1, warmup=5), n_batches=3).train(1)
    assert [] == names_in(tmp_path)


def test_the_default_directory_is_in_the_folder_of_the_run(tmp_path):
    """Without one, the error has the fix."""
    config = {"wait": 0, "warmup": 1, "active": 1}
    make_loop(use("run-folder", directory=tmp_path), use("profiler", **config)).train(1)
    assert ["operators-1-1.txt", "trace-1-1.json"] == names_in(tmp_path / "profile")
    with pytest.raises(ArgumentError, match="profiler has no directory: write use"):
        make_loop("profiler").train(1)


def test_a_trace_that_cannot_be_written_does_not_end_training(tmp_path):
    """It warns, and training continues."""

    def remove(_):
        tmp_path.rename(tmp_path.with_name("moved"))

    loop = make_loop(Profiler(tmp_path, wait=0, warmup=1, active=1), At(0, remove))
    with pytest.warns(UserWarning, match=r"trace-1-1.json cannot be written: .*Training continues"):
        loop.train(1)
    assert 10 == loop.global_step


def test_a_run_that_ends_in_its_first_batch_writes_it(tmp_path):
    """Although no batch has ended."""
    profiler = Profiler(tmp_path, wait=0, warmup=0, active=2)
    with pytest.warns(UserWarning, match="won't be using warmup"):  # torch's own
        make_loop(profiler, At(0, lambda loop: loop.stop())).train(1)
    assert ["trace-0-0.json"] == [path.name for path in profiler.traces]


@pytest.mark.parametrize("config", [{"active": 0}, {"wait": -1}, {"directory": 3}])
def test_unusable_arguments_are_refused(config):
    """Before anything is done."""
    with pytest.raises(ArgumentError, match=next(iter(config))):
        Profiler(**config)


def test_a_second_profiler_is_an_error(tmp_path):
    """Two of them, with which torch would end the process, are refused; one works afterwards."""
    loop = make_loop(Profiler(tmp_path / "one"), Profiler(tmp_path / "two"))
    with pytest.raises(RunError, match="another profiler has not ended"):
        loop.train(n_epochs=1)
    loop.components.pop(1)
    loop.train(n_epochs=1)
    assert 1 == len(loop.components["profiler"].traces)
