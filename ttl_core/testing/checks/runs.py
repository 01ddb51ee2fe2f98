"""Checks of all kinds of runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ttl_core.loop import TrainTestLoop
from ttl_core.testing.outcome import LogBook, as_text, check_same, outcome, weight_facts
from ttl_core.testing.probes import Accumulate, MeanLoss, Probe
from ttl_core.testing.under_test import ComponentUnderTest, check_epochs, seeded


class RunChecks(ComponentUnderTest):
    """Checks of all kinds of runs."""

    def test_trains(self) -> None:
        """A run with the component goes through all its epochs."""
        loop = self._loop()
        loop.train(n_epochs=2)
        check_epochs(loop, 2)

    def test_trains_twice(self) -> None:
        """A second train() works, and counts on."""
        loop = self._loop()
        loop.train(n_epochs=1)
        loop.train(n_optim_steps=2)
        check_epochs(loop, 2)

    def test_tests_alone(self) -> None:
        """test() works on a loop that has never trained."""
        self._loop().test(self.make_data(2))

    def test_validates_alone(self) -> None:
        """validate() works on a loop that has never trained."""
        self._loop().validate()

    def test_predicts_alone(self) -> None:
        """predict() works on a loop that has never trained, and returns scores of each batch."""
        scores = self._loop().predict(self.make_data(2)) or ()
        if len(scores) != 2:
            raise AssertionError(f"predict() returned the scores of {len(scores)} batches of 2")

    def test_is_created_for_each_loop(self) -> None:
        """Two loops get components of their own."""
        one, other = self._loop(), self._loop()
        shared = [c for c in one.components if any(c is another for another in other.components)]
        if shared:
            raise AssertionError(
                f"make_components() returned the same object twice: {shared[0]!r}. Each loop needs "
                "components of its own"
            )

    def test_is_validated_in_mid_epoch(self) -> None:
        """A validate() in the middle of a training epoch changes nothing in training."""

        def validate(loop: TrainTestLoop, _: str) -> None:
            if loop.is_training and loop.batch_num == 1:
                loop.validate(self.make_data(3))  # more batches than were trained

        def trained(validates: bool) -> dict[str, str]:
            loop, log = self._loop(), LogBook()
            loop.components.insert(0, log)
            if validates:
                loop.components.append(Probe(validate, "on_batch_end"))
            with seeded():
                loop.train(n_epochs=2)
            facts = log.facts([entry for entry in log.entries if entry[0].startswith("'train/")])
            return facts | weight_facts(loop.model)

        check_same(
            trained(validates=True),
            trained(validates=False),
            what="training is not the same with a validate() in mid-epoch",
            first="with it",
            second="without it",
            unstable=self._unstable,
        )

    def test_lets_gradients_accumulate(self) -> None:
        """Where two batches make a step, the gradients of the first one count."""
        one, other = (self._accumulated(first) for first in (0, 1))
        lost = [name for name, value in one.items() if other[name] == value]
        if one and len(lost) == len(one):
            raise AssertionError(
                f"the gradient of {lost[0]} after the second of two batches that make a step is "
                f"{one[lost[0]]}, whatever the first one was: its gradients were lost. Clear "
                "gradients in on_grads_reset only"
            )

    def test_takes_another_model(self) -> None:
        """After `loop.model` was exchanged, nothing uses the old model any more."""
        loop = self._loop()
        loop.train(n_epochs=1)
        old = loop.model
        loop.model = self.make_model()
        uses = _Uses(old)
        with uses.noted():
            loop.train(n_epochs=1)
        if uses.found:
            raise AssertionError(
                f"loop.model was exchanged between two train(), but {uses.found[0]}. Read "
                "loop.model anew in each run"
            )

    def test_order_among_others_does_not_matter(self) -> None:
        """Before and after an unrelated component that logs, it does the same."""

        def trained(is_first: bool) -> dict[str, str]:
            loop, log = self._loop(), LogBook()
            loop.components.insert(0, log)
            loop.components.insert(len(loop.components) - is_first, MeanLoss())
            with seeded():
                self._run_all(loop)
            return {name: v for name, v in outcome(loop, log).items() if "mean-loss" not in name}

        check_same(
            trained(is_first=True),
            trained(is_first=False),
            what="its place among unrelated components matters",
            first="after one that logs a value at the end of each epoch",
            second="before it",
            unstable=self._unstable,
        )

    # -- how they do it ---------------------------------------------------------------------

    def _accumulated(self, first: int) -> dict[str, str]:
        """Return gradients after the second of two batches that make a step.

        Args:
            first: which data the first batch is.
        """
        found: dict[str, str] = {}

        def look(loop: TrainTestLoop, _: str) -> None:
            if loop.batch_num == 1 and loop.is_stepping:
                gradients = ((n, p.grad) for n, p in loop.model.named_parameters())
                found.update((n, as_text(g)) for n, g in gradients if g is not None and g.any())
                loop.stop()

        loop = self._loop()
        several = self.make_data(4)
        loop.train_data = [several[2 * first], several[1]]
        loop.components.insert(0, Accumulate())
        loop.components.append(Probe(look, "on_backward_pass"))
        with seeded():
            loop.train(n_epochs=1)
        return found


class _Uses(TorchDispatchMode):
    """The uses of the tensors of a model that is no longer that of the loop.

    Args:
        model: the model.

    Attributes:
        found: in words what was used, and in which operation.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.found: list[str] = []
        self._model = model  # kept, so that no other tensor gets the same memory
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        gradients = {f"the gradient of {n}": p.grad for n, p in model.named_parameters()}
        self._names = {
            tensor.untyped_storage().data_ptr(): name
            for name, tensor in {**named, **gradients}.items()
            if tensor is not None
        }

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note uses inside a with block."""

        def note_call(*_: object) -> None:
            self.found.append("the old model was called")

        handle = self._model.register_forward_pre_hook(note_call)
        try:
            with self:
                yield
        finally:
            handle.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided:
                name = self._names.get(leaf.untyped_storage().data_ptr())
                if name is not None:
                    self.found.append(f"{name} of the old one was used, by {func}")
        return func(*args, **(kwargs or {}))
