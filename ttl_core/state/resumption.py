"""Resuming: from the state that was loaded into a loop to the tail of the interrupted run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ttl_core.arguments import one_of, warn_of_renamed_keyword
from ttl_core.errors import ArgumentError, RunError, StateError
from ttl_core.hooks.member import Member
from ttl_core.state.data_order import Order, iterate_from, not_resumable_error, order_of
from ttl_core.state.gather import gather, stateful_variables
from ttl_core.state.generators import warn_of_other_random_numbers
from ttl_core.state.optimizers import structure_now, structure_of
from ttl_core.state.position import (
    Stage,
    TrainingProgress,
    check_reachable,
    end_of_train,
    position_of,
    restore_position,
)
from ttl_core.state.protocol import State
from ttl_core.state.restore import check_kind, restore, restore_for_testing, restore_skipped
from ttl_core.state.settings import (
    Choice,
    Difference,
    check_settings,
    converted_position,
    differences,
    settings_of,
)
from ttl_core.state.snapshot import snapshot

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop


class Resumption:
    """The state that a loop resumes from, if one was loaded, and the progress of its train().

    Args:
        loop: the loop.
        list_members: returns the members of its list.

    Attributes:
        progress: the progress of the current train() call, or of the last one.
    """

    def __init__(self, loop: TrainTestLoop, list_members: Callable[[], Sequence[Member]]) -> None:
        self.progress = TrainingProgress()
        self._loop = loop
        self._list_members = list_members
        self._earlier: list[State] = []
        self._has_warned = False
        self._order: Order | None = None
        self._loaded: State | None = None
        self._ignored: Collection[str] = ()
        self._choice: Choice | None = None
        self._settings: State = {}  # of the script, as on_train_begin has left them
        self._structure: State = {}
        self._changed: list[Difference] = []  # settings in place of those of the loaded state

    # -- taking and loading a state ---------------------------------------------------------

    def take(self, *, is_resumable: bool) -> State:
        """Return the current state, with its live tensors.

        Args:
            is_resumable: whether a run can resume from it.
        """
        position = None
        if is_resumable and not self._loop.is_validating:
            position = position_of(self._loop, self.progress, self._order)
        members = self._list_members()
        if not self._has_warned:
            self._has_warned = True
            warn_of_other_random_numbers(self._loop)
        return {
            **gather(self._loop, members, position),
            "earlier": [*self._earlier],
            "settings": self._settings,
            "structure": structure_now(
                stateful_variables(self._loop, members), self._structure, self._loop.model
            ),
        }

    def load(
        self, state: Mapping[str, Any], ignored: Collection[str], settings: Choice | None
    ) -> None:
        """Keep a state until there is what it belongs to.

        Args:
            state: the state, which is copied.
            ignored: names of components and loop variables whose state may be missing or unused.
            settings: which settings to use where those of the script differ.
        """
        self._loaded = snapshot(dict(state))  # what is loaded from it would alias it
        self._ignored = ignored
        self._choice = settings

    @property
    def is_pending(self) -> bool:
        """Whether a state was loaded and is not restored yet."""
        return self._loaded is not None

    @property
    def is_ahead(self) -> bool:
        """Whether the loaded state was taken in a later train() call than this one."""
        return (
            self._loaded is not None
            and self.progress.train_num < self._loaded["position"]["train_num"]
        )

    # -- in a run ---------------------------------------------------------------------------

    def begin_train(self) -> None:
        """Begin the progress of the next train() call."""
        self.progress = TrainingProgress(self.progress.train_num + 1)
        self._settings, self._structure, self._changed = {}, {}, []

    def begin_counting(self) -> None:
        """Count from where this train() call begins, also where those before it were skipped."""
        loop, progress = self._loop, self.progress
        position: State = self._loaded["position"] if self._loaded else {"train_num": None}
        if position["train_num"] == progress.train_num:
            loop.epoch_num, loop.global_step = position["first_epoch"], position["first_step"]
        progress.first_epoch, progress.first_step = loop.epoch_num, loop.global_step

    def end_train(self) -> None:
        """Keep what this train() call left; if it was skipped, restore what it had left."""
        if self._loaded is None or not self.is_ahead:
            self._earlier.append(end_of_train(self._loop, self.progress))
            return
        restore_skipped(self._loop, self._list_members(), self._loaded, self.progress.train_num)

    def resume(self, n_epochs: int | None, n_optim_steps: int | None) -> None:
        """Go to the position of the loaded state, and restore it if that is between epochs.

        Args:
            n_epochs: how many epochs this train() call has.
            n_optim_steps: how many optimization steps it has.

        Raises:
            RunError: the state was taken in an earlier call.
            ArgumentError: the state was taken after more epochs or steps than that.
            StateError: the script has other settings than the state.
        """
        variables = stateful_variables(self._loop, self._list_members())
        self._settings = settings_of(variables, self._loop.train_data)
        self._structure = structure_of(variables)
        if self._loaded is None:
            return
        position = self._loaded["position"]
        try:
            check_reachable(position, self.progress.train_num, n_epochs, n_optim_steps)
            self._choose_settings(self._loaded)
        except (ArgumentError, StateError):
            self.progress.train_num -= 1  # the same call can be made again, with what is missing
            raise
        restore_position(self._loop, self.progress, position)
        self._earlier = list(self._loaded.get("earlier", ()))
        if position["epoch"] is None:
            self._restore()

    def _choose_settings(self, state: State) -> None:
        saved, structure = state.get("settings", {}), state.get("structure", {})
        same = {  # those of another class are an error that is about the class
            name: settings
            for name, settings in saved.items()
            if structure.get(name, {}).get("class") == self._structure.get(name, {}).get("class")
        }
        found = differences(same, self._settings)
        check_settings(found, self._choice)
        if self._choice == "new":
            self._changed = found
        else:
            self._settings = saved or self._settings

    def batches(self) -> Iterator[tuple[int, Any]]:
        """Return the numbered batches of a training epoch, or those left of it."""
        data = self._loop.data
        if self._loaded is None:
            self._order = order_of(data)
            return enumerate(data)
        position = self._loaded["position"]["epoch"]
        position = converted_position(position, self._changed, data)
        self._order = position["order"]
        batches = iterate_from(data, position)
        self._restore()
        return enumerate(batches, position["n_batches"])

    def _restore(self) -> None:
        if self._loaded is not None:
            members, new = self._list_members(), self._settings
            restore(self._loop, members, self._loaded, self._ignored, self._changed, new)
            self._loaded = None

    def restore_for_testing(self) -> None:
        """Give an evaluation the model of a state that waits for train()."""
        if self._loaded is not None:
            restore_for_testing(self._loop, self._list_members(), self._loaded, self._ignored)


class ResumableLoop:
    """The methods of a loop that take and load states.

    Attributes:
        is_training: True in training epochs.
        is_validating: True in validation epochs.
        data: the iterable of the current epoch.
    """

    is_training: bool
    is_validating: bool
    data: Any
    _stage: Stage
    _resumption: Resumption

    def state_dict(
        self,
        *,
        copy: bool = True,
        out: Mapping[str, Any] | None = None,
        allow_unsafe: bool = False,
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
            into: the old name of `out`.
            anywhere: the old name of `allow_unsafe`.

        Returns:
            The state: a dict.

        Raises:
            RunError: the loop is not at a safe point.
            StateError: something in the state could not be saved, or the order of the data could
                not be repeated.

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
        at_safe_point = self._stage is Stage.SAFE_POINT and not self.is_validating
        if at_safe_point:
            self.check_resumable()
        elif not allow_unsafe:
            raise RunError(
                "state_dict() was called outside of a safe point, where no run can resume: "
                "components may be halfway through a batch. Call it in on_safe_point"
            )
        taken = self._resumption.take(is_resumable=self._stage.is_resumable)
        return snapshot(taken, out) if copy else taken

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        *,
        ignore: Iterable[str] = (),
        settings: Literal["saved", "new"] | None = None,
    ) -> None:
        """Let the next train() resume from a state, or the current one, in on_train_begin.

        It is restored when on_train_begin has created what it belongs to; inside an epoch, when
        its data are ready too. Before that, test(), validate() and predict() use the model and
        the states of components from it.

        Args:
            state_dict: what `state_dict()` returned.
            ignore: names of components and loop variables whose state may be missing or unused.
            settings: what train() does where the script has other settings than the state, such
                as a learning rate, the length of a schedule or a batch size: "saved" to resume
                with those of the state, "new" with those of the script. By default it is an error.

        Raises:
            StateError: it is no state that a run can resume from.
            ArgumentError: `settings` is something else.
            RunError: the loop has begun to run.
        """
        check_kind(state_dict)
        if not self.can_load_state:
            raise RunError(
                "load_state_dict() was called while the loop is running. Call it before "
                "train(), or in on_train_begin"
            )
        ignored = {ignore} if isinstance(ignore, str) else set(ignore)
        if settings is not None:
            one_of("settings", settings, ("saved", "new"))
        self._resumption.load(state_dict, ignored, settings)

    @property
    def can_load_state(self) -> bool:
        """Whether load_state_dict() is possible: before a run, and until its begin point ends."""
        return self._stage in (Stage.IDLE, Stage.STARTING)

    def check_resumable(self) -> None:
        """Check that a run can resume inside the current training epoch, if there is one.

        Raises:
            StateError: the order of its data cannot be repeated; with the line to write.
        """
        if self.is_training and order_of(self.data) is None:
            raise not_resumable_error(self.data)
