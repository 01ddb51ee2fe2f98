"""Logged values for ttl in Trackio."""

from ttl_trackio.trackio import Trackio

__all__ = ["Trackio"]
