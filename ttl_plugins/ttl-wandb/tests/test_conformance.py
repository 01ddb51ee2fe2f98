"""The requirements on the component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestWandb(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_resumes_its_own_state": "within a process, a run that goes back writes its rows again"
    }

    @pytest.fixture(autouse=True)
    def _options(self, tmp_path, settings, monkeypatch):
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # which stays set otherwise
        self.options = {"directory": tmp_path, "settings": settings}

    def make_components(self):
        return [Step(), use("wandb", project="conformance", **self.options)]
