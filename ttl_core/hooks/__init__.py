"""From the members of a list to callables: registration, compilation, failures, trace, explain."""
