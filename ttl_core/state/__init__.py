"""State of a run: its position, its collection at a safe point, and resuming from it."""
