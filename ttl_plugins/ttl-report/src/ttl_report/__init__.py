"""Reports of runs for ttl: one self-contained HTML page a run, and comparisons of several."""

from ttl_report.component import Report

__all__ = ["Report"]
