"""What those tests share that do harm to the checkpoints of a short run."""

from ttl_core import TrainTestLoop
from ttl_core.testing import ComponentConformance, Step

FIRST, SECOND = "000001-epoch-1-step-3", "000002-epoch-2-step-6"


def train(saving, n_epochs=2):
    """Train with a saver, and return the loop."""
    loop = TrainTestLoop(
        ComponentConformance.make_model(), [Step(), saving], ComponentConformance.make_data()
    )
    loop.train(n_epochs)
    return loop
