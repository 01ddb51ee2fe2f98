"""Components that write files keep two runs apart that were given one directory."""

import pytest
from loops import make_component

from ttl_core import RunError, use
from ttl_core.files import claim_directory
from ttl_core.testing import Step, tiny_data, tiny_loop

TRAIN = ["csv", "jsonl", "profiler", "report", "tensorboard"]


def train(loop):
    """Train for an epoch."""
    loop.train(n_epochs=1)


def evaluate(loop):
    """Test on a batch."""
    loop.test(tiny_data(1))


def predict(loop):
    """Predict a batch."""
    loop.predict(tiny_data(1), collect=False)


@pytest.mark.parametrize(
    ("name", "run"),
    [
        *((name, train) for name in TRAIN),
        *((name, evaluate) for name in ("csv", "jsonl", "report", "tensorboard")),
        ("prediction-writer", predict),
    ],
)
def test_a_directory_belongs_to_one_run_at_a_time(name, run, tmp_path):
    """A second run is refused before its work starts, and begins when the first one has ended."""
    batches = []
    count = make_component(on_batch_begin=lambda loop: batches.append(loop.batch))
    loop = tiny_loop(Step(), count, use(name, directory=tmp_path))
    lock = claim_directory(name, tmp_path)  # as another run would
    with pytest.raises(RunError, match=rf"^'{name}' cannot write to {tmp_path}: another run"):
        run(loop)
    assert [] == batches
    lock.release()
    run(loop)
    assert [] != batches
    claim_directory(name, tmp_path).release()
