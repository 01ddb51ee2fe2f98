"""The requirements on every component."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from ttl_trials import BatchSizeFinder

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step, tiny_data


class TestBatchSizeFinder(ComponentConformance):
    max_seconds_per_batch = 0.5  # the search is part of the first
    opted_out = dict.fromkeys(
        [
            "test_takes_streams",
            "test_takes_a_last_batch_that_is_smaller",
            "test_weighs_batches_by_their_samples",
            "test_lets_gradients_accumulate",
        ],
        "its data are batches, whose size cannot be set",
    )

    @pytest.fixture(autouse=True)
    def _in_process(self, monkeypatch):
        """Try sizes in this process: forking one for each of hundreds of runs takes a minute."""

        def train(self, loop, size):
            self._prepared(loop, size).train(n_optim_steps=1)
            return True

        monkeypatch.setattr(BatchSizeFinder, "_fits", train)

    @staticmethod
    def make_data(n_batches=3):
        samples = TensorDataset(*map(torch.cat, zip(*tiny_data(n_batches), strict=True)))
        return DataLoader(samples, batch_size=6)

    def make_components(self):
        return [Step(), use("batch-size-finder", memory_limit="1GiB", largest=6)]


class TestLrFinder(ComponentConformance):
    max_seconds_per_batch = 0.5  # the sweep is part of the first

    def make_components(self):
        return [Step(), use("lr-finder", n_steps=20)]


REWINDS = (
    "it rewinds the run itself, after which the record of what was logged begins anew, and a "
    "resumed run does not continue a check under way"
)


class TestReplayCheck(ComponentConformance):
    max_seconds_per_batch = 0.1  # as steps are made twice
    opted_out = {  # noqa: RUF012
        **dict.fromkeys(
            [
                "test_resumes_exactly",
                "test_resumes_its_own_state",
                "test_resumes_from_an_earlier_state",
                "test_two_instances_resume_exactly",
                "test_rewinds_exactly",
            ],
            REWINDS,
        ),
        "test_does_not_wait_for_the_device": "it compares steps, which is its job",
        "test_takes_streams": "going back takes data whose order can be repeated",
    }

    def make_components(self):
        return [Step(), use("replay-check", every=2)]
