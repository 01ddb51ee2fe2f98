"""What the tests of this package share."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread):
    """Compute in one thread in every test of this package."""
