"""Checks of runs that are stopped, or fail."""

from __future__ import annotations

import pytest

from ttl_core.loop import TrainTestLoop
from ttl_core.testing.probes import MOMENTS, PlannedError, Probe
from ttl_core.testing.under_test import ComponentUnderTest

_WHERE = ("on_train_begin", "on_epoch_begin", "on_batch_begin", "on_forward_pass", "on_batch_end")
"""Where others may raise what means something to Python."""


_TOO_LATE = {p for p in MOMENTS if "_test_" in p or "_predict_" in p} | {"on_train_end"}
"""Where stop() does not end a train()."""


class EndingChecks(ComponentUnderTest):
    """Checks of runs that are stopped, or fail."""

    def test_survives_stop(self) -> None:
        """stop() at any point ends the run cleanly, and the loop can train again."""
        self._warm_up()
        for moment in self._moments():
            self._stop_at(moment)

    def _stop_at(self, moment: str) -> None:
        loop = self._loop()
        with self._nothing_left_behind(loop, f"stop() in {moment}"):
            for run in self._runs_with(loop, Probe(lambda loop, _: loop.stop(), moment), moment):
                run()
        if loop.epoch_num and moment not in _TOO_LATE:
            raise AssertionError(f"stop() in {moment} was swallowed: the run went on")
        self._train_again(loop, f"after stop() in {moment}")

    def test_survives_an_exception(self) -> None:
        """An exception at any point passes unchanged, and the loop can train again."""
        self._warm_up()
        for moment in self._moments():
            self._fail_at(moment)

    def _fail_at(self, moment: str) -> None:
        raised: list[BaseException] = []
        caught: list[BaseException] = []

        def fail(*_: object) -> None:
            raised.append(PlannedError(f"raised in {moment}, to see what happens"))
            raise raised[-1]

        loop = self._loop()
        with self._nothing_left_behind(loop, f"an exception in {moment}"):
            for run in self._runs_with(loop, Probe(fail, moment), moment):
                try:
                    run()
                except PlannedError as error:
                    caught.append(error)
                except Exception as error:
                    if not raised:
                        raise
                    raise AssertionError(
                        f"an exception of another component in {moment} was swallowed, or led to "
                        f"another one: {type(error).__name__}: {error}"
                    ) from error
            _check_passed(raised, caught, moment)
        self._train_again(loop, f"after an exception in {moment}")

    @pytest.mark.parametrize("kind", [StopIteration, KeyboardInterrupt, SystemExit])
    def test_lets_exceptions_pass(self, kind: type[BaseException]) -> None:
        """Exceptions that mean something to Python pass unchanged."""
        for moment in _WHERE:
            raised: list[BaseException] = []

            def fail(*_: object, raised: list[BaseException] = raised) -> None:
                raised.append(kind())
                raise raised[-1]

            loop = self._loop()
            loop.components.insert(0, Probe(fail, moment))
            caught: list[BaseException] = []
            try:
                loop.train(n_epochs=1)
            except BaseException as error:
                caught.append(error)
            _check_passed(raised, caught, moment)

    def _train_again(self, loop: TrainTestLoop, when: str) -> None:
        epochs = loop.epoch_num
        loop.train(n_epochs=1)
        if loop.epoch_num != epochs + 1:
            raise AssertionError(
                f"{when}, another train(n_epochs=1) ended after {loop.epoch_num - epochs} epochs"
            )


def _check_passed(raised: list[BaseException], caught: list[BaseException], moment: str) -> None:
    """Check that exceptions have left the runs as they were raised, and nothing failed since."""
    kinds = [[type(error).__name__ for error in errors] for errors in (raised, caught)]
    if len(raised) != len(caught):
        raise AssertionError(
            f"an exception of another component in {moment} was swallowed: {kinds[0]} were "
            f"raised, and {kinds[1]} left the runs"
        )
    for before, after in zip(raised, caught, strict=True):
        if before is not after:
            raise AssertionError(
                f"an exception of another component in {moment} was exchanged: {before!r} was "
                f"raised, and {after!r} left the run"
            )
        for note in getattr(after, "__notes__", ()):
            if "then failed in on_exception" in note:
                raise AssertionError(f"it raises in on_exception: {note.removeprefix('ttl: ')}")
