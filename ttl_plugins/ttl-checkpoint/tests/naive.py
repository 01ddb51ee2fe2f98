"""Savers as they are usually written, against which the tests have to fail."""

from __future__ import annotations

from pathlib import Path

import torch

from ttl_core import LoopComponent, hookimpl


class NaiveFile(LoopComponent):
    """Save a whole state, but as a plain `torch.save` does: one file, in place.

    Nothing is written beside, synced, digested, kept or checked, and signals are left alone.

    Args:
        directory: where the file is.
        every: every how many optimization steps to save, besides at the ends of epochs.
        on_saved: called with the path after each save.
    """

    name = "checkpoint"

    def __init__(self, directory, every=1, on_saved=lambda path: None):
        self.path = Path(directory) / "last.pt"
        self.every = every
        self._announce = on_saved
        self._has_looked = False

    @hookimpl(wrapper=True, tryfirst=True)
    def around_run(self, loop):
        if not self._has_looked and self.path.exists():
            loop.load_state_dict(torch.load(self.path, weights_only=False))
        self._has_looked = True
        return (yield)

    def on_safe_point(self, loop):
        if not loop.is_training or loop.global_step % self.every == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(loop.state_dict(copy=False), self.path)
            self._announce(self.path)


class NaiveState(LoopComponent):
    """Save what most scripts save: the model, the optimizer, the scheduler and the epoch.

    What it saves is kept in `states`, one for each safe point; `resume_from` is where to go on.
    """

    name = "checkpoint"

    def __init__(self, resume_from=None):
        self.states = []
        self.resume_from = resume_from

    def on_safe_point(self, loop):
        state = {
            "model": loop.model.state_dict(),
            "optimizer": loop.optimizer.state_dict(),
            "epoch_num": loop.epoch_num,
            "global_step": loop.global_step,
        }
        if getattr(loop, "scheduler", None) is not None:
            state["scheduler"] = loop.scheduler.state_dict()
        self.states.append(state)

    @hookimpl(trylast=True)
    def on_train_begin(self, loop):
        if self.resume_from is not None:
            loop.model.load_state_dict(self.resume_from["model"])
            loop.optimizer.load_state_dict(self.resume_from["optimizer"])
            if "scheduler" in self.resume_from:
                loop.scheduler.load_state_dict(self.resume_from["scheduler"])
            loop.epoch_num = self.resume_from["epoch_num"]
            loop.global_step = self.resume_from["global_step"]
