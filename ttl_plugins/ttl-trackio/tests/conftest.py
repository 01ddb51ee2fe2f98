"""A store of Trackio for tests."""

import pytest
import trackio.sqlite_storage
import trackio.utils


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    for module in (trackio.sqlite_storage, trackio.utils):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path)
