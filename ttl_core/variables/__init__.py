"""The loop variables: their declaration, their defaults, and the error for unset ones."""
