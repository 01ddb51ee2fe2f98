"""The requirements on the component."""

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestTrackio(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_resumes_its_own_state": "within a process, a run that goes back writes its rows again"
    }

    def make_components(self):
        return [Step(), use("trackio", project="conformance")]
