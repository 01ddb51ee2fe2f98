"""Resuming: from the state that was loaded into a loop to the tail of the interrupted run.

What was loaded, what is to be applied and where the run is change together, step by step, so they
are in one module, which is a little longer than others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ttl_core.errors import ArgumentError, StateError
from ttl_core.hooks.failures import StopRun
from ttl_core.hooks.member import Member
from ttl_core.state.configuration import log_changes
from ttl_core.state.data_order import Order, iterate_from, order_of
from ttl_core.state.gather import gather, stateful_variables, warn_of_half_pairs
from ttl_core.state.generators import warn_of_other_random_numbers
from ttl_core.state.optimizers import structure_now, structure_of
from ttl_core.state.position import (
    StopCause,
    TrainingProgress,
    check_reachable,
    end_of_train,
    position_of,
    restore_position,
)
from ttl_core.state.protocol import State, reading
from ttl_core.state.renamed import with_current_names
from ttl_core.state.restore import (
    matched,
    restore,
    restore_for_testing,
    restore_skipped,
    state_of_component,
)
from ttl_core.state.rewinding import (
    DataChoice,
    RewindTarget,
    check_same_run,
    with_current_data,
)
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
    from ttl_core.state.forking import RandomNumbers


class Resumption:
    """The state that a loop resumes from, if one was loaded, and the progress of its train().

    Args:
        loop: the loop.
        members: returns the members of its list.

    Attributes:
        progress: the progress of the current train() call, or of the last one.
        stopped_by: what has stopped that call, and why; None if nothing has.
        random_numbers: those of a fork, which are not the global ones; None for other loops.
        members: as given.
    """

    def __init__(self, loop: TrainTestLoop, members: Callable[[], Sequence[Member]]) -> None:
        self.progress = TrainingProgress()
        self.stopped_by: StopCause | None = None
        self.random_numbers: RandomNumbers | None = None
        self._loop = loop
        self.members = members
        self._before = self.progress, 0, 0  # this train() call: the progress and the counters
        self._earlier: list[State] = []
        self._has_warned = False
        self._order: Order | None = None
        self._loaded: State | None = None
        self._ignored: Collection[str] = ()
        self._choice: Choice | None = None
        self._settings: State = {}  # of the script, as on_train_begin has left them
        self._structure: State = {}
        self._changed: list[Difference] = []  # settings in place of those of the loaded state
        self._is_rewinding = False  # then the loaded state is used again, and must not change
        self._rest: State | None = None  # the position in an epoch, where a state has none

    # -- taking and loading a state ---------------------------------------------------------

    def take(self, *, is_resumable: bool) -> State:
        """Return the current state, with its live tensors.

        Args:
            is_resumable: whether a run can resume from it.
        """
        position = None
        if is_resumable:
            position = position_of(self._loop, self.progress, self._order)
        members = self.members()
        if not self._has_warned:
            self._has_warned = True
            warn_of_other_random_numbers(self._loop)
            warn_of_half_pairs(self._loop, members)
        variables = stateful_variables(self._loop, members)
        begin = {} if position is None else self._structure  # what no run resumes from may differ
        return {
            **gather(self._loop, members, variables, position),
            "earlier": [*self._earlier],
            "settings": self._settings,
            "structure": structure_now(variables, begin, self._loop.model),
        }

    def load(
        self, state: Mapping[str, Any], ignored: Collection[str], settings: Choice | None
    ) -> None:
        """Keep a state until there is what it belongs to.

        Args:
            state: the state; what is loaded from it may alias it.
            ignored: names of components and loop variables whose state may be missing or unused.
            settings: which settings to use where those of the script differ.
        """
        self._loaded = with_current_names(state)
        self._ignored = ignored
        self._choice = settings
        self._is_rewinding = False

    def copy_loaded(self, other: Resumption, left_out: Collection[str]) -> None:
        """Let another loop resume from a copy of the state that was loaded here, if one was.

        Args:
            other: the resumption of the other loop.
            left_out: names of components that it does not have.
        """
        if self._loaded is not None:
            other.load(snapshot(self._loaded), {*self._ignored, *left_out}, self._choice)

    def drop(self) -> None:
        """Forget the state that was loaded, unless it is restored already."""
        self._loaded = None

    @property
    def is_pending(self) -> bool:
        """Whether a state was loaded and is not restored yet."""
        return self._loaded is not None

    def loaded_state_of(self, component: object) -> State | None:
        """Return the state of a component in the loaded one; None if there is none."""
        members, state = self.members(), self._loaded
        return state and state_of_component(self._loop, members, state, self._ignored, component)

    @property
    def is_inside_epoch(self) -> bool:
        """Whether the epoch that begins does so behind its first batch."""
        return self._loaded is not None or self._rest is not None

    @property
    def is_ahead(self) -> bool:
        """Whether the loaded state was taken in a later train() call than this one."""
        return (
            self._loaded is not None
            and self.progress.train_num < self._loaded["position"]["train_num"]
        )

    # -- in a run ---------------------------------------------------------------------------

    def end_by(self, stop: StopRun) -> None:
        """Note what has ended the run.

        It is noted here, not in stop(), as what does not reach the run does not end it.

        Args:
            stop: what has reached the run.
        """
        self.progress.is_stopped = True
        self.stopped_by = cast(StopCause | None, stop.cause)

    def exchange_random_numbers(self) -> None:
        """Let a run of a fork use its own random numbers, when it begins and when it has ended."""
        if self.random_numbers is not None:
            self.random_numbers.exchange(self._loop)

    def begin_train(self) -> None:
        """Begin the progress of the next train() call, or again that of the loaded state."""
        self._before = self.progress, self._loop.epoch_num, self._loop.global_step
        number = self.progress.train_num + 1
        if self._loaded is not None:
            number = min(number, self._loaded["position"]["train_num"])
        self.progress = TrainingProgress(number)
        self.stopped_by = None
        self._settings, self._structure, self._changed = {}, {}, []
        self._rest = None

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
        restore_skipped(self._loop, self.members(), self._loaded, self.progress.train_num)

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
        variables = stateful_variables(self._loop, self.members())
        self._settings = settings_of(variables, self._loop.train_data)
        self._structure = structure_of(variables)
        if self._loaded is None:
            return
        position = self._loaded["position"]
        with self._recovering():
            with reading("position"):
                check_reachable(position, self.progress.train_num, n_epochs, n_optim_steps)
            with reading("settings"):
                self._choose_settings(self._loaded)
            with reading("position"):
                restore_position(self._loop, self.progress, position)
            if position["epoch"] is None:
                self._restore()

    @contextlib.contextmanager
    def _recovering(self) -> Iterator[None]:
        """Let train() be called again after an error in a block, as if it had not been before.

        After a rewind that cannot be: then the next train() begins where this one has failed.
        """
        try:
            yield
        except BaseException as error:
            if self._is_rewinding:
                self._loaded = self._rest = None
            elif isinstance(error, ArgumentError | StateError):
                self.progress, self._loop.epoch_num, self._loop.global_step = self._before
            raise

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
        if not self.is_inside_epoch:
            self._order = order_of(data)
            return enumerate(data)
        with self._recovering():
            position, self._rest = self._rest, None
            if self._loaded is not None:
                saved = self._loaded["position"]["epoch"]
                position = converted_position(saved, self._changed, data)
            assert position is not None
            self._order = position["order"]
            is_complete = position.get("is_complete", False)
            batches = iter(()) if is_complete else iterate_from(data, position)
            self._loop.batch_num = position["n_batches"] - 1
            self._restore()
        return enumerate(batches, position["n_batches"])

    # -- rewinding --------------------------------------------------------------------------

    def target(self, state: State, data: DataChoice, ignored: Collection[str]) -> RewindTarget:
        """Return where the run continues from a state, after checking that it fits.

        Args:
            state: the state.
            data: which data follow.
            ignored: names of components and loop variables whose state may be missing or unused.

        Raises:
            StateError: it was not taken in this train() call, or does not fit.
        """
        loop, members = self._loop, self.members()
        check_same_run(state["position"], self.progress)
        state = with_current_names(state)
        matched(loop, members, state, ignored)
        if data == "replay":
            return RewindTarget(state, None, ignored)
        loop.check_resumable()
        now = position_of(loop, self.progress, self._order)
        order = self._order or {}
        return RewindTarget(*with_current_data(loop, members, state, now, order), ignored)

    def go_to(self, target: RewindTarget) -> None:
        """Continue from an earlier state of this train() call, whose epochs are called anew.

        Args:
            target: where.
        """
        position = target.state["position"]
        self._loop._set_phase(None)
        if not position["has_stepped"]:  # what is pending comes from the state
            self._loop.model.zero_grad(set_to_none=True)
        self._loaded, self._rest, self._ignored = target
        self._changed, self._is_rewinding = [], True
        with self._recovering():
            restore_position(self._loop, self.progress, position)
            if position["epoch"] is None:
                self._restore()

    def _restore(self) -> None:
        if self._loaded is not None:
            restore(
                self._loop,
                self.members(),
                self._loaded,
                self._ignored,
                self._changed,
                self._settings,
                keep=self._is_rewinding,
            )
            with reading("position"):
                self._earlier = list(self._loaded.get("earlier", ()))
            if not self._is_rewinding and self._loop.group.is_main:
                with reading("manifest"):
                    log_changes(self.members(), self._loaded)
            self._loaded = None

    def restore_for_testing(self) -> None:
        """Give an evaluation the model of a state that waits for train()."""
        if self._loaded is not None:
            restore_for_testing(self._loop, self.members(), self._loaded, self._ignored)
