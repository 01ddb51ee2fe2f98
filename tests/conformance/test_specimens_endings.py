"""Bugs in runs that fail, stop, or in which a component is toggled: the kit finds each of them."""

import contextlib
import random

import pytest
from specimens import SPECIMENS, failure, found_by, kit_for, specimens_of

from ttl_core import LoopComponent, hookimpl
from ttl_core.testing import fake_distribution


@found_by("survives_an_exception", "an exception of another component in around_run was swallowed")
class Swallows(LoopComponent):
    """It swallows whatever happens in a run."""

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        with contextlib.suppress(Exception):
            yield


@found_by("survives_an_exception", "on_forward_pass was swallowed, or led to another one")
class SwallowsOneType(LoopComponent):
    """It swallows errors of memory, which are RuntimeErrors, and all others of that type."""

    @hookimpl(wrapper=True)
    def on_forward_pass(self, loop):
        try:
            return (yield)
        except RuntimeError:
            return None


@found_by("survives_an_exception", "was exchanged")
class Exchanges(LoopComponent):
    """It raises an exception of its own in place of others'."""

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        try:
            return (yield)
        except ValueError as error:
            raise type(error)("the epoch failed") from error


@found_by("lets_exceptions_pass", "in on_batch_begin was swallowed: ['StopIteration',")
class SwallowsStopIteration(LoopComponent):
    """It takes a StopIteration for the end of its own iterator."""

    @hookimpl(wrapper=True)
    def on_batch_begin(self, loop):
        try:
            return (yield)
        except StopIteration:
            return None


@found_by("lets_exceptions_pass", "was swallowed: ['KeyboardInterrupt'] were raised")
class SwallowsInterrupt(LoopComponent):
    """It ends a run quietly on ctrl-C."""

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        with contextlib.suppress(KeyboardInterrupt):
            yield


@found_by("survives_an_exception", "it raises in on_exception")
class RaisesInOnException(LoopComponent):
    """It needs what is not there yet when a run fails early."""

    def on_epoch_begin(self, loop):
        self.epoch = loop.epoch_num

    def on_exception(self, loop, exception):
        self.text = f"failed in epoch {self.epoch}, with a loss of {loop.loss}"


@found_by(
    "survives_stop", "after stop() in on_train_begin, another train(n_epochs=1) ended after 0"
)
class NeverAgain(LoopComponent):
    """It remembers that a run was stopped, for ever."""

    is_stopped = True

    def on_train_end(self, loop):
        self.is_stopped = loop.is_stopped

    def on_train_begin(self, loop):
        if self.__dict__.get("is_stopped"):
            loop.stop()


@found_by("survives_stop", "stop() in around_run was swallowed: the run went on")
class SwallowsStop(LoopComponent):
    """It swallows what is no Exception too, and stop() travels as such."""

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        try:
            return (yield)
        except BaseException:
            self.has_failed = True
            if not loop.is_stopped:
                raise
            loop.epoch_num += 1


@found_by("survives_stop", "AssertionError")
class Unbalanced(LoopComponent):
    """It needs an on_epoch_end after each on_epoch_begin."""

    is_open = False

    def on_epoch_begin(self, loop):
        assert not self.is_open
        self.is_open = True

    def on_epoch_end(self, loop):
        self.is_open = False


@found_by("survives_stop", "AttributeError")
class NeedsABatch(LoopComponent):
    """It expects at the end of a run that there was a batch."""

    def on_batch_end(self, loop):
        self.newest = loop.batch_num

    def on_train_end(self, loop):
        self.text = f"the last batch was {self.newest}"


@found_by("can_be_toggled", "has no attribute 'count'")
class NeedsTheStart(LoopComponent):
    """It relies on having been called at the start of a run."""

    def on_train_begin(self, loop):
        self.count = 0

    def on_batch_end(self, loop):
        if loop.is_training:
            self.count += 1


@found_by("can_be_toggled", "has no attribute 'start'")
class NeedsTheBatchBegin(LoopComponent):
    """It relies on having been called at the start of a batch."""

    def on_batch_begin(self, loop):
        self.start = loop.batch_num

    def on_batch_end(self, loop):
        self.took = loop.batch_num - self.start
        del self.start


@found_by("leaves_random_streams_alone", "creating it uses global random numbers")
class ActsInInit(LoopComponent):
    """It acts when it is created."""

    def __init__(self):
        random.seed(1)

    def on_batch_end(self, loop):
        self.newest = loop.batch_num


@found_by("disabled_again_is_as_absent", "disabled after it was enabled is not the same as absent")
class ActsWhereDisabled(LoopComponent):
    """It hooks the model, and acts there also where it is disabled."""

    is_hooked = False

    def on_train_begin(self, loop):
        if not self.is_hooked:
            self.is_hooked = True
            loop.model[0].register_forward_hook(lambda module, inputs, output: output * 1.1)


@found_by("disabled_again_is_as_absent", "'train/")
class LogsWhereDisabled(LoopComponent):
    """It hooks a parameter, and logs from there."""

    def on_train_begin(self, loop):
        weight = loop.model[0].weight
        weight.register_post_accumulate_grad_hook(lambda p: loop.log({"norm": p.grad.norm()}))


@pytest.mark.parametrize("cls", specimens_of(__name__), ids=lambda cls: cls.__name__)
def test_finds(cls):
    """The check that is named finds the bug, and says so in words."""
    check, words = SPECIMENS[cls]
    assert words in failure(kit_for(cls), check)


def test_finds_what_acts_where_it_is_disabled():
    """A component that acts when it is created is not the same as an absent one, if disabled."""
    with fake_distribution("acme-ttl", {"acme": ActsInInit}):
        text = failure(kit_for(lambda: "acme"), "test_disabled_is_as_absent")
    assert "disabled is not the same as absent" in text
    assert "the global random stream of Python is" in text
