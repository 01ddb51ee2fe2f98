"""Around-hooks of components that are enabled, or join, in the middle of a run."""

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop, hookimpl


class Late(LoopComponent):
    """A component that records what it surrounds."""

    def __init__(self, log):
        self.log = log

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        self.log.append("enter run")
        try:
            return (yield)
        finally:
            self.log.append("leave run")

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        self.log.append(f"enter {loop.epoch_desc}")
        try:
            return (yield)
        finally:
            self.log.append("leave epoch")

    def on_batch_begin(self, loop):
        self.log.append(f"batch {loop.batch_num}")


class Act(LoopComponent):
    """A component that acts once, at a point of a batch."""

    def __init__(self, point, action, at=(0, 0)):
        self.action, self.at, self.has_acted = action, at, False
        setattr(self, point, self.act)

    def act(self, loop):
        if not self.has_acted and (loop.epoch_num, loop.batch_num) >= self.at:
            self.has_acted = True
            self.action(loop)


def run(action, point="on_batch_end", *, late=None, n_epochs=1, valid_data=None):
    """Train two batches an epoch, with a late component that is disabled until an action."""
    log = []
    late = late or Late(log)
    late.log = log
    loop = TrainTestLoop(torch.nn.Identity(), [late, Act(point, action)], [0, 1], valid_data)
    loop.components.disable("late")
    loop.train(n_epochs)
    return log


def enable(loop):
    """Enable the late component."""
    loop.components.enable("late")


WHOLE = ["enter run", "enter train", "batch 1", "leave epoch", "leave run"]


def test_one_that_is_enabled_surrounds_the_rest_of_epoch_and_run():
    """Its around-hooks are entered before its next hook, and left once."""
    assert WHOLE == run(enable)


def test_one_that_joins_surrounds_the_rest_of_epoch_and_run():
    """The same holds for one that is put into the list."""
    log = []
    join = Act("on_batch_end", lambda loop: loop.components.insert(0, Late(log)))
    TrainTestLoop(torch.nn.Identity(), [join], [0, 1]).train(1)
    assert WHOLE == log


def test_one_in_an_assigned_list_surrounds_the_rest():
    """The same holds for one that is in a list that replaces the old one."""
    log = []

    def assign(loop):
        loop.components = [Late(log), *loop.components]

    TrainTestLoop(torch.nn.Identity(), [Act("on_batch_end", assign)], [0, 1]).train(1)
    assert WHOLE == log


def test_one_that_is_enabled_between_epochs_enters_the_run_first():
    """The next epoch is surrounded like any other."""
    log = run(enable, "on_safe_point", n_epochs=2)
    assert "enter run" == log[0]
    assert 1 == log.count("enter run") == log.count("leave run")
    assert log.count("leave epoch") == sum(entry.startswith("enter t") for entry in log)


def test_toggling_enters_once():
    """A component that was entered stays so while it is disabled, and is left at the end."""

    def toggle(loop):
        for _ in range(3):
            loop.components.enable("late")
            loop.log({"x": 1})
            loop.components.disable("late")
            loop.log({"x": 1})

    log = run(toggle)
    assert ["enter run", "enter train", "leave epoch", "leave run"] == log


@pytest.mark.parametrize("how", ["stop", "exception", "interrupt"])
def test_late_ones_are_left_whatever_happens(how):
    """What is undone in finally: is undone after stop(), exceptions and ctrl-C."""
    log = []

    def end(loop):
        if how == "stop":
            loop.stop()
        raise {"exception": ZeroDivisionError, "interrupt": KeyboardInterrupt}[how]

    ending = Act("on_batch_end", end, at=(0, 1))
    loop = TrainTestLoop(
        torch.nn.Identity(), [Late(log), Act("on_batch_end", enable), ending], [0, 1]
    )
    loop.components.disable("late")
    if how == "stop":
        loop.train(1)
    else:
        with pytest.raises((ZeroDivisionError, KeyboardInterrupt)):
            loop.train(1)
    assert WHOLE == log


def test_one_enabled_in_a_nested_validation_enters_the_training_epoch_behind_it():
    """Both epochs are surrounded, the outer one from the next hook call after the nested one."""
    log = []

    class Nested(LoopComponent):
        def on_batch_end(self, loop):
            if loop.is_validating:
                loop.components.enable("late")
            elif loop.batch_num == 0:
                loop.validate()

    loop = TrainTestLoop(torch.nn.Identity(), [Late(log), Nested()], [0, 1], [0, 1])
    loop.components.disable("late")
    loop.train(1)
    nested = ["enter run", "enter valid", "batch 1", "leave epoch"]
    assert [*nested, "enter train", "batch 1", "leave epoch"] == log[:7]
    assert "leave run" == log[-1]


def test_one_enabled_before_a_nested_validation_enters_the_training_epoch_behind_it():
    """The training epoch is entered when the loop variables say that it is one."""
    log = []

    class Nested(LoopComponent):
        def on_batch_end(self, loop):
            if loop.is_training and loop.batch_num == 0:
                loop.components.enable("late")
                loop.validate()

    loop = TrainTestLoop(torch.nn.Identity(), [Late(log), Nested()], [0, 1], [0])
    loop.components.disable("late")
    loop.train(1)
    nested = ["enter run", "enter valid", "batch 0", "leave epoch"]
    assert [*nested, "enter train", "batch 1", "leave epoch"] == log[:7]


def test_late_ones_are_left_in_reverse_order():
    """The last one entered is the first one left, inside those that were there before."""
    log = []

    class Named(Late):
        def __init__(self, log, label):
            super().__init__(log)
            self.label = label

        @hookimpl(wrapper=True)
        def around_epoch(self, loop):
            self.log.append(f"enter {self.label}")
            try:
                return (yield)
            finally:
                self.log.append(f"leave {self.label}")

        around_run = None
        on_batch_begin = None

    class Plain(LoopComponent):
        def __init__(self, label):
            self.label = label

        @hookimpl(wrapper=True)
        def around_epoch(self, loop):
            log.append(f"enter {self.label}")
            try:
                return (yield)
            finally:
                log.append(f"leave {self.label}")

    join = Act("on_batch_end", lambda loop: loop.components.extend([Plain("b"), Plain("c")]))
    TrainTestLoop(torch.nn.Identity(), [Plain("a"), join], [0, 1]).train(1)
    expected = ["enter a", "enter b", "enter c", "leave c", "leave b", "leave a"]
    assert expected == log


def test_a_late_wrapper_may_replace_or_swallow_an_exception():
    """As wrappers that were there from the start may."""

    class Catch(LoopComponent):
        @hookimpl(wrapper=True)
        def around_epoch(self, loop):
            try:
                return (yield)
            except ZeroDivisionError:
                return None

    def join_and_fail(loop):
        loop.components.append(Catch())
        loop.log({"x": 1})
        raise ZeroDivisionError

    loop = TrainTestLoop(torch.nn.Identity(), [Act("on_batch_end", join_and_fail)], [0])
    loop.train(1)
    assert 1 == loop.epoch_num


@pytest.mark.parametrize("yields", [0, 2])
def test_a_late_wrapper_that_does_not_yield_once_is_an_error_that_names_it(yields):
    """Pluggy's own error, attributed to the component."""

    class Bad(LoopComponent):
        @hookimpl(wrapper=True)
        def around_epoch(self, loop):
            for _ in range(yields):
                yield

    loop = TrainTestLoop(
        torch.nn.Identity(),
        [Act("on_batch_end", lambda loop: loop.components.append(Bad()))],
        [0, 1],
    )
    with pytest.raises(RuntimeError, match="wrap_controller") as caught:
        loop.train(1)
    assert "component 'bad'" in caught.value.__notes__[0]


def test_no_other_point_is_replayed():
    """on_train_begin and on_epoch_begin of a late component are not called."""
    log = []

    class Begin(LoopComponent):
        def on_train_begin(self, loop):
            log.append("train")

        def on_epoch_begin(self, loop):
            log.append("epoch")

    join = Act("on_batch_end", lambda loop: loop.components.append(Begin()))
    TrainTestLoop(torch.nn.Identity(), [join], [0, 1]).train(1)
    assert [] == log
