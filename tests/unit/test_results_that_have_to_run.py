"""Hooks that return a generator or a coroutine, which would do nothing: found when first called."""

from __future__ import annotations

import pytest
from loops import make_component, make_loop

from ttl_core import LoopComponent, hookimpl


def wrapped(loop):
    """A wrapper, as another component has it."""
    return (yield)


async def awaited(loop):
    """A function that has to be awaited."""


class Delegating(LoopComponent):
    """A component that delegates to the wrapper of another one, as if that were a plain hook."""

    def on_batch_end(self, loop):
        return wrapped(loop)


def test_a_plain_hook_that_returns_a_generator_is_an_error():
    """It would do nothing; the error says how to write a wrapper, and the note says who."""
    with pytest.raises(
        TypeError, match="the hook returned a generator, which is not run"
    ) as caught:
        make_loop(Delegating()).train(1)
    assert "write @hookimpl(wrapper=True) and `return (yield from ...)`" in str(caught.value)
    (note,) = caught.value.__notes__
    assert note.startswith("ttl: raised by component 'delegating'")
    assert note.endswith("in on_batch_end, train epoch, epoch_num=0, batch_num=0")


def test_it_is_found_again_in_the_next_run():
    """A run that failed did not make it acceptable."""
    loop = make_loop(Delegating())
    for _ in range(2):
        with pytest.raises(TypeError, match="which is not run"):
            loop.train(1)


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("function", [wrapped, awaited], ids=["generator", "coroutine"])
def test_it_is_found_among_others(position, function):
    """The others of the point are called until then, and the note names the right one."""
    log = []
    parts = [make_component(on_epoch_begin=lambda loop: log.append(1)) for _ in range(2)]
    wrong = make_component(name="wrong", on_epoch_begin=lambda loop: function(loop))
    parts.insert(position, wrong)
    with pytest.raises(TypeError) as caught:
        make_loop(*parts).train(1)
    assert [1] * position == log
    assert "raised by component 'wrong'" in caught.value.__notes__[0]


def test_it_is_found_inside_a_wrapper():
    """A plain hook that a wrapper of another component surrounds is checked too."""
    around = type(
        "Around",
        (LoopComponent,),
        {"on_batch_end": hookimpl(wrapper=True)(lambda s, loop: (yield))},
    )()
    with pytest.raises(TypeError) as caught:
        make_loop(around, Delegating()).train(1)
    assert "raised by component 'delegating'" in caught.value.__notes__[0]


def test_it_is_found_in_a_component_that_is_enabled_in_mid_run():
    """The first call of each implementation is checked, also late in a run."""
    enable = make_component(
        on_batch_begin=lambda loop: loop.batch_num and loop.components.enable("delegating")
    )
    loop = make_loop(enable, make_component(on_batch_end=lambda loop: None), Delegating())
    loop.components.disable("delegating")
    with pytest.raises(TypeError) as caught:
        loop.train(1)
    assert "batch_num=1" in caught.value.__notes__[0]


def test_later_results_are_not_looked_at():
    """So that hooks cost what they cost; a hook that delegates does so at its first call too."""

    class Later(LoopComponent):
        n = 0

        def on_batch_end(self, loop):
            self.n += 1
            return wrapped(loop) if self.n > 1 else None

    loop = make_loop(Later(), train_data=[0] * 3, valid_data=None)
    loop.train(1)
    assert 3 == loop.components[0].n


def test_a_wrapper_is_called_once_although_results_are_checked():
    """Checking calls nothing twice."""
    log = []

    class Around(LoopComponent):
        @hookimpl(wrapper=True)
        def on_batch_end(self, loop):
            log.append("before")
            yield
            log.append("after")

    make_loop(Around(), make_component(on_batch_end=lambda loop: log.append("in"))).train(1)
    assert ["before", "in", "after"] * 3 == log  # two batches, and one of validation


def test_other_results_are_ignored():
    """A hook may return anything else."""
    values = iter([1, [2], iter([]), object()])
    make_loop(make_component(on_batch_begin=lambda loop: next(values, None))).train(1)
    assert next(values, None) is not None
