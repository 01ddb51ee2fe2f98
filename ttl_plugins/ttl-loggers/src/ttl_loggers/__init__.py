"""Logged values for ttl as CSV, as JSON lines, and in memory."""

from ttl_loggers.csv_logger import Csv
from ttl_loggers.history import History
from ttl_loggers.jsonl_logger import Jsonl

__all__ = ["Csv", "History", "Jsonl"]
