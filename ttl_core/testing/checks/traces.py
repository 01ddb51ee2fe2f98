"""Checks of what a run leaves behind."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from ttl_core.testing.outcome import Facts, check_same
from ttl_core.testing.structure import loop_structure, model_structure, optimizer_structure
from ttl_core.testing.surroundings import changes, left_behind, surroundings
from ttl_core.testing.under_test import ComponentUnderTest, once


class TraceChecks(ComponentUnderTest):
    """Checks of what a run leaves behind: all read what one run has left."""

    @once
    def _left(self) -> dict[str, list[str]]:
        """Return what is not as it was before a component was created, and ran."""
        self.make_components()  # which imports what it needs
        self._warm_up()
        before = surroundings()
        loop = self._loop()
        found = model_structure(loop.model) | loop_structure(loop)
        with _new_working_directory() as written:
            self._run_all(loop)
        now = model_structure(loop.model) | loop_structure(loop)
        left = {**left_behind(before), "model": changes(found, now)}
        return left | {"process": [*left["process"], *written]}

    def _check_left(self, kind: str, advice: str) -> None:
        lines = self._left()[kind]
        if lines:
            raise AssertionError("\n  ".join(["after runs of all kinds", *lines]) + f"\n{advice}")

    def test_leaves_no_threads(self) -> None:
        """Every thread and process that it starts has ended when a run ends."""
        self._check_left(
            "threads", "End what was started, in finally: after the yield of around_run"
        )

    def test_leaves_no_open_files(self) -> None:
        """Every file that it opens is closed when a run ends."""
        self._check_left(
            "files", "Close what was opened, in finally: after the yield of around_run"
        )

    def test_leaves_the_process_as_it_was(self) -> None:
        """Signal handlers, working directory, environment, warning filters are as they were."""
        self._check_left("process", "Restore it, in finally: after the yield of around_run")

    def test_leaves_torch_as_it_was(self) -> None:
        """Default dtype, grad mode, autocast, determinism and other settings are as found."""
        self._check_left("torch", "Restore it, in finally: after the yield of around_run")

    def test_leaves_the_model_as_it_was(self) -> None:
        """The model has the parts, flags and hooks that it had, and the loop its components."""
        self._check_left("model", "Undo it, in finally: after the yield of around_run")

    def test_leaves_optimizers_as_they_were(self) -> None:
        """The optimizers have the methods, hooks and settings that they have without it."""

        def structure(with_it: bool) -> Facts:
            loop = self._loop() if with_it else self._control()
            loop.train(n_epochs=1)
            return optimizer_structure(loop, settings="optimizer" not in self.writes)

        without, found = structure(with_it=False), structure(with_it=True)
        if "optimizer" in self.writes:  # it may also be another one
            found = {name: text for name, text in found.items() if name in without}
            without = {name: text for name, text in without.items() if name in found}
        if without:  # else it is the component that makes them
            check_same(
                found,
                without,
                what="after a run, an optimizer is not as it is without the component. Where "
                "settings are its job, declare writes = {'optimizer'}",
                first="with it",
                second="without it",
            )


@contextlib.contextmanager
def _new_working_directory() -> Iterator[list[str]]:
    """Work in an empty folder inside a with block; the list says at its end what was written there.

    A component that changes the working directory itself is left in what it has changed it to.
    """
    written: list[str] = []
    before = os.getcwd()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        new = os.getcwd()
        try:
            yield written
        finally:
            written += [
                f"it has written {name!r} into the working directory. Take a folder as an argument"
                for name in sorted(os.listdir(new))
            ]
            if os.getcwd() == new:
                os.chdir(before)
