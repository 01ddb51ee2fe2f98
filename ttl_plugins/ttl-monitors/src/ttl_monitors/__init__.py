"""What a run does, as logged values for ttl: learning rates, norms, throughput, memory."""

from ttl_monitors.grad_monitor import GradMonitor
from ttl_monitors.lr_monitor import LrMonitor
from ttl_monitors.memory import Memory
from ttl_monitors.throughput import Throughput

__all__ = ["GradMonitor", "LrMonitor", "Memory", "Throughput"]
