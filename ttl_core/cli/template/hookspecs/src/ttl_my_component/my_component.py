"""The component `my-component`."""

from __future__ import annotations

from ttl_core import LoopComponent, TrainTestLoop
from ttl_core.arguments import whole_number

from ttl_my_component.hookspecs import MyComponentPoints


class MyComponent(LoopComponent):
    """Call other components every so many optimization steps.

    They implement the callback point `my_component_due(loop, step)`.

    Args:
        steps: the number of steps from one call to the next.

    Raises:
        ArgumentError: `steps` is no whole number from 1.

    Example:
        >>> from ttl_core import hookimpl
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> class Show(LoopComponent):
        ...     @hookimpl
        ...     def my_component_due(self, step):
        ...         print("step", step)
        >>> components = [Step(), MyComponent(steps=2), Show()]
        >>> model, data = ComponentConformance.make_model(), ComponentConformance.make_data()
        >>> loop = TrainTestLoop(model, components, data)
        >>> loop.train(n_epochs=1)
        step 2
    """

    hookspecs = MyComponentPoints

    def __init__(self, *, steps: int = 100) -> None:
        self.steps = whole_number("steps", steps, at_least=1)

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Call the other components if they are due."""
        if loop.is_training and loop.is_stepping and loop.global_step % self.steps == 0:
            loop.hook.my_component_due(loop=loop, step=loop.global_step)
