"""What the adapters of all libraries have in common."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ttl_core import ArgumentError, LoopComponent, hookimpl, leave_out_hooks
from ttl_core.arguments import describe

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class Adapter(LoopComponent):
    """A callback of another library as a component; subclasses translate its hooks.

    Hooks are called from the beginning of a run on. Where the component is enabled in the middle
    of one, they are called from its next training epoch on.

    Args:
        callback: the callback.

    Attributes:
        callback: the callback.

    Raises:
        ArgumentError: it is no callback of the library, or one that cannot work here.
    """

    library: ClassVar[str]
    """The library, in words."""

    packages: ClassVar[Collection[str]]
    """The top-level packages of the library."""

    hooks: ClassVar[Collection[str]]
    """Names of which a callback has some as methods."""

    hooks_of_points: ClassVar[Mapping[str, Collection[str]]]
    """The hooks for which it implements points of batches, which cost nothing without them."""

    instead: ClassVar[Mapping[str, str]]
    """What there is in place of callbacks of the library that cannot work here, by class."""

    base: ClassVar[str] = ""
    """The class of the library whose methods are hooks that do nothing."""

    def __init__(self, callback: object) -> None:
        self.callback = self._checked(callback)
        self._methods: dict[str, Any] = {}  # of the callback in this run, by hook
        cls = next(cls for cls in type(self).__mro__ if "hooks_of_points" in vars(cls))
        points = self.hooks_of_points.items()
        unused = [point for point, hooks in points if not any(map(self._method, hooks))]
        leave_out_hooks(self, cls, unused)
        self._is_begun = False  # whether the hooks for the beginning of the run were called
        self._is_epoch_beginning = False  # whether its beginning is not yet told
        self._is_epoch_ending = False  # whether the epoch was trained, and its end not yet told
        self.should_stop = False
        self.first_epoch = 0  # the first one of this train()
        self.hook = ""  # the hook of the callback that is being called
        self.n_ahead = 0  # by how much `epoch_num` is ahead of the epoch that the callback sees

    def _checked(self, callback: object) -> Any:
        if isinstance(callback, type):
            raise ArgumentError(
                f"callback is the class {callback.__name__}: write "
                f"callback={callback.__name__}(...), which makes one"
            )
        if not any(callable(getattr(callback, name, None)) for name in self.hooks):
            raise ArgumentError(
                f"callback is {describe(callback)}, which is no callback of {self.library}: it has "
                f"none of the methods {', '.join(self.hooks)}"
            )
        for cls in type(callback).__mro__:
            if cls.__name__ in self.instead and cls.__module__.split(".")[0] in self.packages:
                raise ArgumentError(
                    f"callback is a {cls.__name__} of {self.library}, which needs more of its "
                    f"trainer than ttl-adapters has. Instead: {self.instead[cls.__name__]}"
                )
        return callback

    def __repr__(self) -> str:
        return f"{type(self).__name__}(callback=<{type(self.callback).__name__}>)"

    def fork(self) -> None:
        """Leave it out of forks of the loop, as callbacks write files and show things."""

    # -- what subclasses implement ----------------------------------------------------------

    def _begin(self, loop: TrainTestLoop) -> None:
        """Set up for a run, before what other components do at its beginning."""

    def _begin_training(self, loop: TrainTestLoop) -> None:
        """Call the hooks for the beginning of training."""

    def _begin_epoch(self, loop: TrainTestLoop) -> None:
        """Call the hooks for the beginning of a training epoch."""

    def _finish_epoch(self, loop: TrainTestLoop) -> None:
        """Act at the first safe point after an epoch and its validation."""

    def _reach_safe_point(self, loop: TrainTestLoop) -> None:
        """Act at a safe point, before other components do."""

    def _finish(self, loop: TrainTestLoop) -> None:
        """Act when a run has ended, but not where it has failed."""

    def _callback_state(self) -> dict[str, Any]:
        """Return the state of the callback."""
        raise NotImplementedError

    def _load_callback_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state of the callback."""
        raise NotImplementedError

    # -- runs -------------------------------------------------------------------------------

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Set up, and finish."""
        self._is_epoch_ending = self.should_stop = False
        self.first_epoch, self.n_ahead = loop.epoch_num, 0
        self._methods.clear()
        self._begin(loop)
        result = yield
        if self._is_begun:
            self._finish(loop)
            self._is_begun = False  # not where it has failed, as on_exception follows
        return result

    @hookimpl(wrapper=True)
    def on_safe_point(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """End the epoch before other components save or stop here, and stop after them."""
        self._reach_safe_point(loop)
        is_over = not loop.is_training  # the epoch, with its validation
        if is_over and loop.epoch_desc == "train" and loop.valid_data is not None:
            return (yield)
        if self._is_epoch_ending and is_over:
            self._is_epoch_ending = False
            self.n_ahead = int(loop.valid_data is not None)
            self._finish_epoch(loop)
            self.n_ahead = 0
        result = yield
        if self.should_stop and loop.optim_step_num != loop.n_optim_steps:
            loop.stop(f"{type(self.callback).__name__} asked for it")
        return result

    @hookimpl(specname="on_epoch_begin", tryfirst=True)
    def stop_again(self, loop: TrainTestLoop) -> None:
        """Stop a run that resumed from a state in which the callback had asked for it."""
        if self.should_stop and loop.is_training:
            loop.stop(f"{type(self.callback).__name__} asked for it")

    @hookimpl(specname="on_batch_begin", tryfirst=True)
    def tell_epoch(self, loop: TrainTestLoop) -> None:
        """Begin the epoch with its first batch.

        In on_epoch_begin a run that resumes inside an epoch has not yet loaded the state, in which
        the beginning was told.
        """
        if self._is_epoch_beginning:
            self._is_epoch_beginning = False
            self._begin_epoch(loop)

    def _method(self, hook: str) -> Any:
        """Return a method of the callback; None where there is none, or one that does nothing."""
        method = getattr(self.callback, hook, None)
        if getattr(method, "__qualname__", "") != f"{self.base}.{hook}":
            return method
        return None if method.__module__.partition(".")[0] in self.packages else method

    def _has(self, hook: str) -> bool:
        """Return whether the callback has a hook."""
        if hook not in self._methods:
            self._methods[hook] = self._method(hook)
        return self._methods[hook] is not None

    def _call(self, hook: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a hook of the callback, if it has it."""
        if not self._has(hook):
            return None
        method = self._methods[hook]
        outer, self.hook = self.hook, hook
        try:
            return method(*arguments, **keywords)
        finally:
            self.hook = outer

    # -- state ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and the state of the callback."""
        return {
            "is_epoch_ending": self._is_epoch_ending,
            "should_stop": self.should_stop,
            "first_epoch": self.first_epoch,
            "callback": self._callback_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Args:
            state: what `state_dict` returned.
        """
        self._is_epoch_beginning = False
        self._is_epoch_ending = state["is_epoch_ending"]
        self.should_stop = state["should_stop"]
        self.first_epoch = state["first_epoch"]
        self._load_callback_state(state["callback"])
