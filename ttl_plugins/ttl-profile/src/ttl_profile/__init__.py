"""Where the time of a run goes, for ttl: in which operators, and in which components."""

from ttl_profile.component_timer import ComponentTimer
from ttl_profile.profiler import Profiler
from ttl_profile.timing import TimerRow

__all__ = ["ComponentTimer", "Profiler", "TimerRow"]
