"""What the bundle `my-component` does."""

from ttl_core import TrainTestLoop, bundle
from ttl_core.testing import ComponentConformance


def test_a_loop_trains_with_its_components() -> None:
    """The bundle is found by name, its configuration gets there, and the loss is logged."""
    data = ComponentConformance.make_data()
    loop = TrainTestLoop(
        ComponentConformance.make_model(),
        [*bundle("my-component", lr=0.1)],
        train_data=data,
        valid_data=data,
    )
    loop.train(n_epochs=1)
    assert loop.optimizer.param_groups[0]["lr"] == 0.1
    assert sorted(loop.metrics) == ["train/loss", "valid/loss"]
