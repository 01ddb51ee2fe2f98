"""Wrappers: their order, what they undo and when, and the results that pass through them."""

from __future__ import annotations

import pytest

from ttl_core import LoopComponent, hookimpl


class Around(LoopComponent):
    """Write down when it begins and ends to surround a run, an epoch, and each batch's end."""

    def __init__(self, name, story):
        self.name, self.story = name, story

    def surround(self, what):
        self.story.append(f"{self.name} begins {what}")
        try:
            return (yield)
        finally:
            self.story.append(f"{self.name} ends {what}")

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        return (yield from self.surround("run"))

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        return (yield from self.surround("epoch"))

    @hookimpl(wrapper=True)
    def on_batch_end(self, loop):
        return (yield from self.surround("point"))


WHOLE = [
    *("a begins run", "a begins epoch", "a begins point"),
    *("a ends point", "a ends epoch", "a ends run"),
]


def stop(loop):
    """Stop the loop."""
    loop.stop()


def fail(loop):
    """Fail with an exception."""
    raise ZeroDivisionError


def interrupt(loop):
    """Fail as ctrl-C makes it."""
    raise KeyboardInterrupt


def take_out(loop):
    """Take everyone out of the list."""
    loop.components.clear()


def disable(loop):
    """Switch the wrapper off."""
    loop.components.disable("a")


def replace_all(loop):
    """Put a list without the wrapper in place of the loop's."""
    loop.components = []


def duplicate(loop):
    """Put a component into the list twice, which makes the next hook call fail."""
    loop.components.append(loop.components[0])


@pytest.fixture
def story():
    """Return the list that wrappers write to."""
    return []


def test_the_first_wrapper_in_the_list_is_the_outermost(at, loop_of, story):
    """Wrappers nest in list order around everyone else."""
    plain = at(on_batch_end=lambda loop: story.append("plain"))
    loop = loop_of(plain, Around("a", story), Around("b", story))
    loop.hook.on_batch_end(loop=loop)
    expected = ["a begins point", "b begins point", "plain", "b ends point", "a ends point"]
    assert expected == story


def test_around_hooks_surround_their_run_and_epochs(at, loop_of, story):
    """What lies between two around-hooks is the body of the run, and of each epoch."""
    told = at(
        on_train_begin=lambda loop: story.append("on_train_begin"),
        on_epoch_begin=lambda loop: story.append("on_epoch_begin"),
        on_epoch_end=lambda loop: story.append("on_epoch_end"),
        on_safe_point=lambda loop: story.append("on_safe_point"),
        on_train_end=lambda loop: story.append("on_train_end"),
    )
    loop_of(Around("a", story), told, train_data=[], valid_data=None).train(n_epochs=1)
    epoch = ["a begins epoch", "on_epoch_begin", "on_epoch_end", "a ends epoch"]
    run = ["on_train_begin", *epoch, "on_safe_point", "on_train_end"]
    assert ["a begins run", *run, "a ends run"] == story


@pytest.mark.parametrize(
    ("event", "exception"), [(fail, ZeroDivisionError), (interrupt, KeyboardInterrupt)]
)
def test_wrappers_undo_when_a_run_fails(at, loop_of, story, event, exception):
    """What is in `finally:` after a yield runs on exceptions and on ctrl-C."""
    loop = loop_of(Around("a", story), at(on_batch_end=event))
    with pytest.raises(exception):
        loop.train(n_epochs=1)
    assert WHOLE == story


def test_wrappers_undo_when_a_run_is_stopped(at, loop_of, story):
    """What is in `finally:` after a yield runs on stop()."""
    loop_of(Around("a", story), at(on_batch_end=stop)).train(n_epochs=1)
    assert WHOLE == story


@pytest.mark.parametrize("event", [take_out, disable, replace_all])
def test_wrappers_undo_when_they_have_left_meanwhile(at, loop_of, story, event):
    """Who began to surround something ends it, also when taken out or switched off."""
    leaving = at(on_batch_end=event)
    loop = loop_of(Around("a", story), leaving, train_data=[0, 1], valid_data=None)
    loop.train(n_epochs=1)
    assert WHOLE == story


def test_wrappers_undo_when_the_list_has_become_unusable(at, loop_of, story):
    """An error about the list itself leaves nothing undone."""
    loop = loop_of(Around("a", story), at(on_batch_end=duplicate), train_data=[0])
    with pytest.raises(ValueError, match="stands twice"):
        loop.train(n_epochs=1)
    assert WHOLE == story


def test_a_wrapper_that_joins_later_ends_nothing_that_it_did_not_begin(at, loop_of, story):
    """A wrapper that comes on in mid-epoch surrounds what begins after it."""
    joining = at(on_epoch_begin=lambda loop: loop.components.append(Around("a", story)))
    loop_of(joining, train_data=[0], valid_data=None).train(n_epochs=1)
    assert ["a begins point", "a ends point"] == story


def test_a_wrapper_sees_who_failed_inside_it(at, loop_of):
    """The exception of the innermost passes through the wrappers around it."""
    seen = []

    @hookimpl(wrapper=True)
    def catching(loop):
        try:
            yield
        except ZeroDivisionError as exception:
            seen.append(type(exception))
            raise

    loop = loop_of(at(on_batch_end=catching), at(on_batch_end=fail))
    with pytest.raises(ZeroDivisionError):
        loop.train(n_epochs=1)
    assert [ZeroDivisionError] == seen


def test_a_wrapper_may_end_an_exception(at, loop_of):
    """A run goes on where a wrapper caught what was raised inside it."""

    @hookimpl(wrapper=True)
    def catching(loop):
        try:
            return (yield)
        except ZeroDivisionError:
            return []

    loop = loop_of(at(on_batch_end=catching), at(on_batch_end=fail))
    loop.train(n_epochs=1)
    assert 1 == loop.epoch_num


def test_a_wrapper_sees_the_list_of_results(at, loop_of):
    """The yield of a wrapper gives what the others returned."""
    seen = []

    @hookimpl(wrapper=True)
    def looking(loop):
        results = yield
        seen.append(list(results))
        return results

    loop = loop_of(at(on_batch_end=looking), *(at(on_batch_end=lambda loop: 1) for _ in "ab"))
    loop.hook.on_batch_end(loop=loop)
    assert [[1, 1]] == seen


def test_a_wrapper_may_change_the_list_of_results(at, loop_of):
    """What a wrapper returns is what the caller gets."""

    @hookimpl(wrapper=True)
    def doubling(loop):
        results = yield
        return [2 * result for result in results]

    loop = loop_of(at(on_batch_end=doubling), at(on_batch_end=lambda loop: 3))
    assert [6] == loop.hook.on_batch_end(loop=loop)


# -- tryfirst and trylast -------------------------------------------------------------------


@pytest.fixture
def called(at, loop_of):
    """Return a function that tells who is called in which order, given options by name."""

    def called(**options):
        order = []

        def plain(name):
            return hookimpl(**options[name])(lambda loop: order.append(name))

        def wrapper(name):
            @hookimpl(**options[name])
            def wrapping(loop):
                order.append(name)
                return (yield)

            return wrapping

        loop = loop_of(
            *(
                at(name=name, on_batch_end=(wrapper if "wrapper" in given else plain)(name))
                for name, given in options.items()
            )
        )
        loop.hook.on_batch_end(loop=loop)
        return order

    return called


FIRST, LAST, WRAPPER = {"tryfirst": True}, {"trylast": True}, {"wrapper": True}


@pytest.mark.parametrize("options", [{}, FIRST, LAST, WRAPPER, FIRST | WRAPPER, LAST | WRAPPER])
def test_implementations_of_one_kind_keep_the_order_of_the_list(called, options):
    """Among implementations with the same options the list decides."""
    assert ["a", "b", "c"] == called(a=options, b=options, c=options)


def test_tryfirst_comes_before_and_trylast_after_the_plain_ones(called):
    """The list is overruled by tryfirst and trylast."""
    assert ["first", "plain", "last"] == called(last=LAST, plain={}, first=FIRST)


def test_wrappers_come_before_all_others(called):
    """A wrapper surrounds the tryfirst implementations too."""
    assert ["wrapper", "first"] == called(first=FIRST, wrapper=WRAPPER | LAST)


def test_wrappers_have_tryfirst_and_trylast_among_themselves(called):
    """A tryfirst wrapper is outermost, a trylast one innermost."""
    expected = ["first", "wrapper", "last"]
    assert expected == called(last=WRAPPER | LAST, wrapper=WRAPPER, first=WRAPPER | FIRST)
