"""Failing runs: what the note says, and that the exception passes unchanged."""

from __future__ import annotations

import pytest
import torch
from failures import Failure, Harmless, attribution, fail, failure_of
from loops import make_component, make_loop

from ttl_core import LoopComponent, RunError


def test_the_note_names_component_class_point_epoch_and_batch():
    """The note has in one line all that is known about a failure."""

    class Late(LoopComponent):
        def on_batch_end(self, loop):
            if (loop.epoch_num, loop.batch_num) == (2, 1):
                fail()

    exception = failure_of(lambda: make_loop(Late()).train(n_epochs=3))
    component = f"component 'late' (class {__name__}.{Late.__qualname__})"
    expected = f"ttl: raised by {component} in on_batch_end, train epoch, epoch_num=2, batch_num=1"
    assert [expected] == exception.__notes__


@pytest.mark.parametrize(
    ("point", "where"),
    [
        ("on_train_begin", "in on_train_begin"),
        ("on_epoch_begin", "in on_epoch_begin, train epoch, epoch_num=0"),
        ("on_safe_point", "in on_safe_point, train epoch, epoch_num=0, batch_num=0"),
        ("on_train_end", "in on_train_end"),
    ],
)
def test_the_note_has_epoch_and_batch_only_inside_them(point, where):
    """Outside epochs and batches, the note mentions none."""
    exception = failure_of(lambda: make_loop(make_component(**{point: fail})).train(n_epochs=1))
    assert exception.__notes__[0].endswith(where)


def test_the_note_names_the_phase():
    """The note says whether the failure was in training or in validation."""
    failing = make_component(on_batch_end=lambda loop: loop.is_validating and fail())
    exception = failure_of(lambda: make_loop(failing).train(n_epochs=1))
    assert exception.__notes__[0].endswith("valid epoch, epoch_num=0, batch_num=0")


def test_the_note_names_the_component_that_called_a_nested_validation():
    """The note of a failure in a validate() has its own epoch, and the component that called it."""
    calling = make_component(name="calling", on_train_begin=lambda loop: loop.validate())
    failing = make_component(name="failing", on_batch_begin=fail)
    exception = failure_of(lambda: make_loop(calling, failing).train(n_epochs=1))
    where = "in on_batch_begin, valid epoch, epoch_num=0, batch_num=0"
    assert "failing" == attribution(exception)[0]
    assert f"{where}, in a validate() called by component 'calling'" in exception.__notes__[0]
    assert exception.__notes__[0].endswith("in on_train_begin")


@pytest.mark.parametrize("length", [0, 1])
def test_data_that_fail_are_named(length):
    """An exception of the data is attributed to them and to no component."""

    def batches():
        yield from range(length)
        fail()

    exception = failure_of(lambda: make_loop(Harmless(), train_data=batches()).train(n_epochs=1))
    after = ", after batch_num=0" if length else ""
    expected = f"ttl: raised by the data, not by a component, train epoch, epoch_num=0{after}"
    assert [expected] == exception.__notes__


def test_an_error_of_the_loop_itself_has_no_note():
    """The message of an error that the loop raises is complete without a note."""
    with pytest.raises(RunError) as raised:
        make_loop(Harmless(), train_data=[]).train(n_optim_steps=1)
    assert not hasattr(raised.value, "__notes__")


def test_a_failure_in_a_nested_validation_has_one_note():
    """A failure that passes through a nested validation gets one note."""
    calling = make_component(on_batch_end=lambda loop: loop.is_validating or loop.validate())
    exception = failure_of(
        lambda: make_loop(calling, make_component(on_epoch_end=fail)).train(n_epochs=1)
    )
    assert 1 == len(exception.__notes__)


# -- the exception itself -------------------------------------------------------------------


class StrictError(Exception):
    """An exception that takes no notes."""

    def add_note(self, note):
        raise TypeError


class SpoiledError(Exception):
    """An exception whose notes are no list."""

    __notes__ = None


class SlottedError(Exception):
    """An exception without attributes that can be set."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


@pytest.mark.parametrize(
    "cls",
    [
        *(Failure, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, AttributeError),
        *(RuntimeError, StrictError, SpoiledError, SlottedError),
    ],
)
@pytest.mark.parametrize("around", [[], [Harmless]], ids=["alone", "inside wrappers"])
def test_an_exception_passes_unchanged(around, cls):
    """train() raises what a component raised, also if on_exception fails."""
    exception = cls()

    def failing(loop):
        raise exception

    failing = make_component(on_batch_begin=failing, on_exception=fail)
    loop = make_loop(*(wrapper() for wrapper in around), failing)
    with pytest.raises(cls) as raised:
        loop.train(n_epochs=1)
    assert exception is raised.value


def test_an_interruption_has_a_note_like_any_other_exception():
    """The note of an interruption names the component in whose code it came."""

    def interrupt(loop):
        raise KeyboardInterrupt

    loop = make_loop(Harmless(), make_component(name="slow", on_batch_end=interrupt))
    assert ("slow", "on_batch_end") == attribution(failure_of(lambda: loop.train(n_epochs=1)))


def test_an_exception_passes_from_a_list_that_has_become_unusable():
    """A component that makes the list unusable and then fails is named with its failure."""

    def failing(loop):
        loop.components *= 2
        fail()

    loop = make_loop(make_component(name="failing", on_batch_end=failing))
    assert ("failing", "on_batch_end") == attribution(failure_of(lambda: loop.train(n_epochs=1)))


def test_a_failure_that_a_component_catches_is_none(recorder):
    """A run continues after a validate() whose exception was caught."""

    def trying(loop):
        with pytest.raises(Failure):
            loop.validate()
        loop.stop()

    loop = make_loop(make_component(on_train_begin=trying, on_epoch_begin=fail), recorder)
    loop.train(n_epochs=1)
    assert ["on_train_end"] == recorder.points


@pytest.mark.parametrize("point", ["on_forward_pass", "on_loss_compute"])
def test_a_failure_with_a_batch_shows_what_it_is(point):
    """Shapes and types are what such an error is most often about."""

    def multiply(loop):
        torch.ones(3) @ loop.batch["x"]

    loop = make_loop(make_component(**{point: multiply}))
    loop.train_data = [{"x": torch.ones(2, 4), "y": (torch.tensor([1]), "a")}]
    with pytest.raises(RuntimeError) as caught:
        loop.train(n_epochs=1)
    expected = "ttl: the batch is {'x': float32[2, 4], 'y': (int64[1], str)}"
    assert expected == caught.value.__notes__[1]
