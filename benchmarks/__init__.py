"""What a training step costs in ttl, in a hand-written loop and in other libraries."""
