"""The checks of the kit, by concept."""
