"""What the kit gives authors for tests of their own: a recorder, and fake distributions."""

import sys

import pytest

from ttl_core import ArgumentError, LoopComponent, PluginError, UnknownNameError
from ttl_core.hookspecs import POINTS
from ttl_core.testing import HookRecorder, Step, Stream, fake_distribution, tiny_data, tiny_loop


class Sam(LoopComponent):
    """A component of a fake distribution."""

    def on_batch_end(self, loop):
        self.newest = loop.batch_num


def test_a_recorder_records_every_point():
    """Without points it records all that fire, in their order."""
    recorder = HookRecorder()
    loop = tiny_loop(Step(), recorder, n_batches=1, n_valid_batches=1)
    loop.train(n_epochs=1)
    loop.test(tiny_data(1))
    loop.predict(tiny_data(1))
    assert set(POINTS) - {"on_exception"} == set(recorder.points)
    assert ["around_run", "on_train_begin", "around_epoch", "on_epoch_begin"] == recorder.points[:4]


def test_a_recorder_knows_where_a_call_was():
    """A call has its phase, epoch and batch; outside of epochs the phase is empty."""
    recorder = HookRecorder("on_train_begin", "on_batch_end")
    tiny_loop(Step(), recorder, n_batches=2, n_valid_batches=1).train(n_epochs=1)
    found = [(call.phase, call.epoch_num, call.batch_num) for call in recorder.calls]
    assert [("", 0, None), ("train", 0, 0), ("train", 0, 1), ("valid", 0, 0)] == found


def test_a_recorder_has_what_points_give():
    """What was logged is there by name, and so is the exception of a run that failed."""
    recorder = HookRecorder()
    loop = tiny_loop(Step(), recorder, n_batches=2)
    loop.train_data = [*tiny_data(1), None]
    with pytest.raises(TypeError) as failed:
        loop.train(n_epochs=1)
    assert 1 == len(recorder.logged("train/loss"))
    assert failed.value is recorder.calls[-1].arguments["exception"]


def test_a_recorder_refuses_points_that_do_not_exist():
    """A misspelled point is an error."""
    with pytest.raises(ArgumentError, match="on_batch_ends"):
        HookRecorder("on_batch_ends")


def test_a_stream_has_no_length():
    """Data of it have no length, in the loop too."""
    loop = tiny_loop(Step())
    loop.train_data = Stream(tiny_data(2))
    loop.train(n_epochs=1)
    assert loop.n_batches is not None  # of the validation
    assert (None, 2) == (loop.n_optim_steps, loop.global_step)


def test_a_fake_distribution_is_installed_inside_its_block():
    """Its component is found by name, with its version, and is gone afterwards."""
    before = sys.path[:]
    with fake_distribution("acme-ttl-sam", {"acme-sam": Sam}, version="2.1"):
        (record,) = tiny_loop("acme-sam").manifest()
        found = record["name"], record["distribution"], record["version"]
        assert ("acme-sam", "acme-ttl-sam", "2.1") == found
    with pytest.raises(UnknownNameError):
        tiny_loop("acme-sam")
    assert before == sys.path


def test_a_fake_distribution_may_be_broken():
    """Errors of discovery can be tested: an entry point that names nothing, and versions."""
    with (
        fake_distribution("acme-ttl", {"acme": "no_such_module:Acme"}),
        pytest.raises(PluginError, match="no_such_module"),
    ):
        tiny_loop("acme")
    with (
        fake_distribution("acme-ttl", {"acme-sam": Sam}, requires=["ttl-core>=99"]),
        pytest.raises(PluginError, match="ttl-core"),
    ):
        tiny_loop("acme-sam")


def test_two_fake_distributions_may_offer_one_name():
    """The error for a name that two distributions offer can be tested."""
    with (
        fake_distribution("acme-a", {"acme-sam": Sam}),
        fake_distribution("acme-b", {"acme-sam": Sam}),
    ):
        with pytest.raises(UnknownNameError, match="acme-a/acme-sam"):
            tiny_loop("acme-sam")
        assert "acme-b" == tiny_loop("acme-b/acme-sam").manifest()[0]["distribution"]
