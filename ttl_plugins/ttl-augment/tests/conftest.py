"""Fixtures that the tests of all components of this package share."""

from component_fixtures import make_loop, recorder, through_file

__all__ = ["make_loop", "recorder", "through_file"]
