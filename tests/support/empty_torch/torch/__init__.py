"""An empty torch, for commands of `ttl`, which only import it: the real one takes two seconds."""
