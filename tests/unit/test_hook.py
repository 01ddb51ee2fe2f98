"""loop.hook: the callables of all points, for whoever wants to call one."""

from __future__ import annotations

import pytest

from ttl_core.hookspecs import POINTS


def returning(result):
    """Return a hook that returns `result`."""
    return lambda loop: result


def test_loop_hook_is_one_stable_object(at, loop_of):
    """An edit of the list changes what hooks call, and not loop.hook."""
    loop = loop_of(at(on_batch_end=lambda loop: "old"))
    hook = loop.hook
    loop.train(n_epochs=1)
    loop.components[0] = at(on_batch_end=lambda loop: "new")
    assert hook is loop.hook
    assert ["new"] == hook.on_batch_end(loop=loop)


def test_loop_hook_has_every_point(loop_of):
    """Each core point is an attribute of loop.hook."""
    hook = loop_of().hook
    assert [] == [point for point in POINTS if not callable(getattr(hook, point, None))]


def test_a_point_that_is_none_is_no_attribute(loop_of):
    """A misspelled point is an error and not silence."""
    with pytest.raises(AttributeError, match="on_batch_edn"):
        loop_of().hook.on_batch_edn(loop=None)


@pytest.mark.parametrize("has_been_called", [False, True])
def test_hooks_take_keywords_only(at, loop_of, has_been_called):
    """Arguments by position are refused, from the first call on."""
    loop = loop_of(at(on_batch_end=lambda loop: None))
    if has_been_called:
        loop.hook.on_batch_end(loop=loop)
    with pytest.raises(TypeError, match="positional"):
        loop.hook.on_batch_end(loop)


@pytest.mark.parametrize("given", [{}, {"loop": None, "other": 1}], ids=["too few", "too many"])
def test_hooks_take_the_arguments_of_their_point(loop_of, given):
    """A missing or an unknown argument is refused."""
    with pytest.raises(TypeError, match="argument"):
        loop_of().hook.on_batch_end(**given)


def test_a_hook_returns_the_results_that_are_not_none(at, loop_of):
    """Results come in call order; None is no result, other empty values are."""
    loop = loop_of(*(at(on_batch_end=returning(result)) for result in [1, None, 0, [], "x"]))
    assert [1, 0, [], "x"] == loop.hook.on_batch_end(loop=loop)


def test_a_hook_that_nobody_implements_returns_no_results(loop_of):
    """Without implementations the list is empty."""
    loop = loop_of()
    assert [] == loop.hook.on_batch_end(loop=loop)


@pytest.mark.parametrize(
    ("implementation", "expected"),
    [
        (lambda: "nothing", "nothing"),
        (lambda loop, metrics, level: (loop, metrics, level), ("L", "M", "V")),
        (lambda level: level, "V"),
        (lambda level, loop: (level, loop), ("V", "L")),
        (lambda metrics, level, loop: (metrics, level, loop), ("M", "V", "L")),
    ],
    ids=["none", "all", "one", "two, turned round", "all, turned round"],
)
def test_an_implementation_gets_the_arguments_that_it_names(at, loop_of, implementation, expected):
    """Each implementation is passed what it names, in its own order."""
    loop = loop_of(at(on_log=implementation))
    assert [expected] == loop.hook.on_log(loop="L", metrics="M", level="V")


def test_the_loop_passes_the_arguments_that_an_implementation_names(at, loop_of):
    """The calls that the loop makes itself follow the same rule."""
    seen = []
    loop_of(at(on_log=lambda level, metrics: seen.append((level, metrics)))).log({"loss": 1})
    assert [("batch", {"loss": 1})] == seen


def test_disabled_components_are_not_called(at, loop_of):
    """A hook asks the enabled components only."""
    loop = loop_of(at(name="a", on_batch_end=lambda loop: "a"), at(on_batch_end=lambda loop: "b"))
    loop.components.disable("a")
    assert ["b"] == loop.hook.on_batch_end(loop=loop)
