"""The methods of a loop that take and load states.

They are one public interface, whose docstrings take most of the lines; what they do is elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from ttl_core.arguments import one_of, warn_of_renamed_keyword
from ttl_core.errors import ArgumentError, RunError
from ttl_core.group import Group
from ttl_core.state.data_order import not_resumable_error, order_of
from ttl_core.state.forking import fork
from ttl_core.state.format import check_state
from ttl_core.state.position import Stage, StopCause, training_data
from ttl_core.state.ranks import state_of_group, state_of_rank
from ttl_core.state.resumption import Resumption
from ttl_core.state.rewinding import RewindRun, check_rewindable
from ttl_core.state.snapshot import snapshot


class ResumableLoop:
    """The methods of a loop that take and load states.

    Attributes:
        is_validating: True in validation epochs.
    """

    is_validating: bool
    _stage: Stage
    _interrupted: dict[str, Any]
    _resumption: Resumption

    if TYPE_CHECKING:

        @property
        def group(self) -> Group:
            """The processes that train together."""

    def state_dict(
        self,
        *,
        copy: bool = True,
        out: Mapping[str, Any] | None = None,
        allow_unsafe: bool = False,
        of_group: bool = False,
        sharded: bool = False,
        into: Mapping[str, Any] | None = None,
        anywhere: bool | None = None,
    ) -> dict[str, Any]:
        """Return all that a run needs to resume from here to the same bits.

        That is the position, the model, the loop variables and the components that have
        `state_dict()` and `load_state_dict()`, `metrics`, random numbers, and what ran, of types
        that `torch.load(weights_only=True)` accepts.

        Args:
            copy: whether to copy tensors, to the CPU. Without it they are the live ones, which
                change as training continues: for callers that write them at once.
            out: an earlier state that is no longer needed, whose memory is reused for the copy.
            allow_unsafe: whether to return a state also where no run can resume from it, to
                inspect after a failure. Its "position" is then None, and `load_state_dict`
                refuses it.
            of_group: whether to include what differs in the other processes of `loop.group`, such
                as random numbers. Then all of them have to call this at the same safe point.
            sharded: whether, with `of_group`, no distributed tensor is gathered, for callers that
                let each process write its part: in place of each is a description for
                `attach_parts`, and an entry "parts" has the tensors that this process has to
                write into its file, by the byte at which each begins. Where there are no
                distributed tensors, there is no such entry.
            into: the old name of `out`.
            anywhere: the old name of `allow_unsafe`.

        Returns:
            The state: a dict.

        Raises:
            RunError: the loop is not at a safe point.
            StateError: something in the state could not be saved, or the order of the data could
                not be repeated.
            ArgumentError: `sharded` is given without `of_group`.

        Example:
            >>> from ttl_core import LoopComponent, TrainTestLoop
            >>> from ttl_core.testing import ComponentConformance, Step
            >>> class Keep(LoopComponent):
            ...     def on_safe_point(self, loop):
            ...         self.state = loop.state_dict()
            >>> def make_loop():
            ...     return TrainTestLoop(ComponentConformance.make_model(), [Step(), Keep()],
            ...                          ComponentConformance.make_data())
            >>> loop = make_loop()
            >>> loop.train(n_epochs=2)
            >>> other = make_loop()
            >>> other.load_state_dict(loop.components["keep"].state)
            >>> other.train(n_epochs=3)
            >>> other.epoch_num, other.global_step
            (3, 9)
        """
        if into is not None:
            warn_of_renamed_keyword("into", "out")
            out = into
        if anywhere is not None:
            warn_of_renamed_keyword("anywhere", "allow_unsafe")
            allow_unsafe = anywhere
        if sharded and not of_group:
            raise ArgumentError("sharded=True is for the state of a group: give of_group=True too")
        if self.can_take_state:
            self.check_resumable()
        elif not allow_unsafe:
            raise RunError(
                "state_dict() was called outside of a safe point, where no run can resume: "
                "components may be halfway through a batch. Call it in on_safe_point"
            )
        is_behind_safe_point = self._stage is Stage.ENDING_SAFELY and not self.is_validating
        taken = self._resumption.take(is_resumable=self.can_take_state or is_behind_safe_point)
        if of_group:
            taken = state_of_group(taken, self.group, sharded=sharded)
        return snapshot(taken, out) if copy else taken

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        *,
        ignore: Iterable[str] = (),
        settings: Literal["saved", "new"] | None = None,
        copy: bool = True,
    ) -> None:
        """Let the next train() resume from a state, or the current one, in on_train_begin.

        It is restored when on_train_begin has created what it belongs to; inside an epoch, when
        its data are ready too. Before that, test(), validate() and predict() use the model and
        the states of components from it.

        A loop that has run resumes as a new one does: train() is then the call in which the state
        was taken, with its epochs and steps counted from where that one began.

        Args:
            state_dict: what `state_dict()` returned.
            ignore: names of components and loop variables whose state may be missing or unused.
            settings: what train() does where the script has other settings than the state, such
                as a learning rate, the length of a schedule or a batch size: "saved" to resume
                with those of the state, "new" with those of the script. By default it is an error.
            copy: whether to copy the state. Without it the state must not be used again, as
                training may change its tensors: for callers that have read it from a file.

        Raises:
            StateError: it is no state that a run can resume from.
            ArgumentError: `settings` is something else.
            RunError: the loop has begun to run.
        """
        check_state(state_dict)
        if not self.can_load_state:
            raise RunError(
                "load_state_dict() was called while the loop is running. Call it before "
                "train(), or in on_train_begin"
            )
        ignored = {ignore} if isinstance(ignore, str) else set(ignore)
        if settings is not None:
            one_of("settings", settings, ("saved", "new"))
        own = state_of_rank(state_dict, self.group, ignored)
        self._resumption.load(snapshot(own) if copy else own, ignored, settings)

    def rewind(
        self,
        state_dict: Mapping[str, Any],
        data: Literal["replay", "skip"] = "replay",
        *,
        ignore: Iterable[str] = (),
    ) -> NoReturn:
        """Let the current train() continue from an earlier state of itself, at a safe point.

        The rest of on_safe_point is skipped. Wrappers of around_epoch leave; then everything is
        what it was when the state was taken, and training continues as if it had not been
        further: where the state lies inside an epoch, around_epoch and on_epoch_begin come once
        more, as in a run that resumes. on_train_begin does not. In a group of several processes,
        all of them have to rewind at the same safe point.

        The state is not changed, so that it can be used again. The list of components stays as it
        is, also where it was edited since.

        Args:
            state_dict: what `state_dict()` has returned in this train().
            data: "replay" to continue with the batches that followed the state, to the same bits;
                "skip" to continue with those behind the current batch. Then `epoch_num` and
                `batch_num`, which count data, stay; the steps are those of the state.
            ignore: names of components and loop variables whose state may be missing or unused.

        Raises:
            RunError: the loop is not at a safe point.
            StateError: the state does not fit, or was taken in another train().
            ArgumentError: `data` is something else.

        Example:
            >>> from ttl_core import LoopComponent
            >>> from ttl_core.testing import Step, tiny_loop
            >>> class Retry(LoopComponent):
            ...     state, is_done = None, False
            ...     def on_safe_point(self, loop):
            ...         if loop.global_step == 1:
            ...             self.state = loop.state_dict()
            ...         if loop.global_step == 3 and not self.is_done:
            ...             self.is_done = True
            ...             loop.rewind(self.state, data="skip")
            >>> loop = tiny_loop(Step(), Retry())
            >>> loop.train(n_epochs=2)
            >>> loop.global_step  # of six batches, two are undone
            4
        """
        one_of("data", data, ("replay", "skip"))
        check_rewindable(self)  # type: ignore[arg-type]
        check_state(state_dict)
        ignored = {ignore} if isinstance(ignore, str) else set(ignore)
        if "group" in state_dict:
            state_dict = state_of_rank(state_dict, self.group, ignored)
        target = self._resumption.target(dict(state_dict), data, ignored)
        self._stage = Stage.RUNNING  # wrappers that leave can take no state
        raise RewindRun(target)

    def fork(self, *, without: Iterable[str] = ()) -> Self:
        """Return a second loop in the same state, to try something without touching this one.

        Its model is a copy, its components are created again, and its data have a position of
        their own over the same samples. It has random numbers of its own: its runs leave the
        global ones as they were. Of a fork at a safe point, train() continues from there as that of
        this loop would, with the same counters and settings; of one in on_train_begin or outside of
        runs, it begins as the next one of this loop will.

        Components that were enabled by name are created from their configuration, of which a copy
        is made. One that was created by hand has a method `fork()`, which returns a new one with
        the same configuration, or None to be left out, as components do that write files or to a
        terminal; without that method, all its attributes have to be values that do not change.
        Other variables that were set on the loop are copied, where `copy.deepcopy` can.

        Args:
            without: names of components to leave out.

        Returns:
            The other loop.

        Raises:
            RunError: the loop is inside an epoch.
            ArgumentError: a name is not in the list.
            StateError: a component, the model or the data cannot be made a second time.

        Example:
            >>> from ttl_core.testing import Step, tiny_loop
            >>> loop = tiny_loop(Step())
            >>> other = loop.fork()
            >>> other.train(n_epochs=1)
            >>> loop.global_step, other.global_step
            (0, 3)
        """
        return fork(self, {without} if isinstance(without, str) else list(without))  # type: ignore

    def drop_loaded_state(self) -> None:
        """Let the next train() start from here, not from a state that was loaded before.

        What test() has restored of it stays. If no state waits for train(), this has no effect.

        Raises:
            RunError: the loop is running.
        """
        self._stage.check_idle("drop_loaded_state")
        self._resumption.drop()

    @property
    def has_loaded_state(self) -> bool:
        """Whether a state was loaded from which train() has not resumed yet."""
        return self._resumption.is_pending

    def loaded_state_of(self, component: object) -> dict[str, Any] | None:
        """Return the state of a component in the state from which train() is about to resume.

        Components are given their states when on_train_begin has ended. This is for those that
        set up something there which follows from it, such as the size of batches.

        Args:
            component: the component.

        Returns:
            A copy of its state; None if no state was loaded, or it holds none of this component.
        """
        return self._resumption.loaded_state_of(component)

    @property
    def can_take_state(self) -> bool:
        """Whether state_dict() is possible: at a safe point.

        A validate() that is called there is part of it until its first epoch begins, so that the
        outermost wrapper of around_epoch can take a state from which the run resumes with the
        validation: the implementations of on_safe_point are then called once more.
        """
        return self._stage is Stage.SAFE_POINT

    @property
    def can_load_state(self) -> bool:
        """Whether load_state_dict() is possible: before a run, and until its begin point ends."""
        return self._stage in (Stage.IDLE, Stage.STARTING)

    @property
    def is_stopped(self) -> bool:
        """Whether stop() has ended a run, since train() was last called."""
        return self._resumption.progress.is_stopped

    @property
    def stopped_by(self) -> StopCause | None:
        """The component that has called stop(), and its reason, since train() was last called.

        It is None where no stop() has ended a run, and after resuming a run that had been stopped.
        The component and the reason are None where they are not known.
        """
        return self._resumption.stopped_by

    def check_resumable(self) -> None:
        """Check that a run can resume inside the current training epoch, if there is one.

        Raises:
            StateError: the order of its data cannot be repeated; with the line to write.
        """
        data = training_data(self)
        if data is not None and order_of(data) is None:
            raise not_resumable_error(data)
