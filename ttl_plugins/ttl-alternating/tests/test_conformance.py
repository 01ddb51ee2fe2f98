"""The requirements on every component."""

from ttl_alternating.conformance import AlternatingConformance


class TestAlternating(AlternatingConformance):
    pass
