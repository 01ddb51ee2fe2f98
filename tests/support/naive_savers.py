"""Savers as they are usually written: the tests of resuming have to fail with them."""

from __future__ import annotations

from pathlib import Path

import torch

from ttl_core import LoopComponent, hookimpl


class NaiveFileSaver(LoopComponent):
    """A saver of the complete state by a plain `torch.save`: one file, in place.

    It uses no temporary file, sync, digest or check, keeps no earlier file, and handles no signal.

    Args:
        directory: where the file is.
        every: the number of optimization steps between saves; it also saves at ends of epochs.
        on_saved: is called with the path after each save.
    """

    name = "checkpoint"

    def __init__(self, directory, every=1, on_saved=lambda path: None):
        self.path = Path(directory) / "last.pt"
        self.every = every
        self._on_saved = on_saved
        self._can_resume = True

    @hookimpl(wrapper=True, tryfirst=True)
    def around_run(self, loop):
        if self._can_resume and self.path.exists():
            loop.load_state_dict(torch.load(self.path, weights_only=False))
        self._can_resume = False
        return (yield)

    def on_safe_point(self, loop):
        if not loop.is_training or loop.global_step % self.every == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(loop.state_dict(copy=False), self.path)
            self._on_saved(self.path)


class NaiveStateSaver(LoopComponent):
    """A saver of what most scripts save: the model, the optimizer, the scheduler and the epoch.

    Args:
        resume_from: what it saved in an earlier run; None to start without.

    Attributes:
        states: what it has saved, one for each safe point; tensors are the live ones.
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
