"""All contenders, and those that are not there."""

from __future__ import annotations

import importlib

from benchmarks import hand_written, with_ttl
from benchmarks.contender import Contender

BY_HAND = hand_written.CONTENDER
OURS = (with_ttl.SUPERVISED, with_ttl.OWN_STEP)
PEERS = ("ignite", "torchtnt", "skorch", "poutyne", "lightning", "transformers", "keras")
NOT_INSTALLABLE = {
    "Composer": (
        "its newest version, mosaicml 0.32.1, requires torch<2.7.1 and torchmetrics<1.7.5, so it "
        "cannot be installed with the torch of the others"
    ),
}


def load_peers() -> tuple[list[Contender], dict[str, str]]:
    """Import the peers.

    Returns:
        Those that work here, and for all others by name why they do not.
    """
    peers, missing = [], dict(NOT_INSTALLABLE)
    for name in PEERS:
        try:
            peers.append(importlib.import_module(f"benchmarks.peers.{name}").CONTENDER)
        except ImportError as error:
            missing[name] = f"it could not be imported ({error})"
    return peers, missing
