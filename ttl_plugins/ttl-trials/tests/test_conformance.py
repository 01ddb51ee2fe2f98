"""The requirements on every component."""

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


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
