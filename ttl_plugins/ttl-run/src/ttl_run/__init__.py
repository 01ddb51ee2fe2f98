"""The folder and the record of a run for ttl, and its random numbers."""

from ttl_run.run_folder import RunFolder
from ttl_run.seed import Seed
from ttl_run.seeding import seed_all

__all__ = ["RunFolder", "Seed", "seed_all"]
