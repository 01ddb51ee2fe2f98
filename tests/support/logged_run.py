"""A run that all loggers record, which may be killed; started again, it resumes.

Its arguments are a directory, and for each process of the run the step after which it kills itself;
0 for none. It prints the libraries that were imported with the components of their loggers, and how
each process has ended. The processes are forked from one that has imported the libraries, which
takes many seconds.
"""

import importlib
import os
import signal
import sys
import traceback
from pathlib import Path

from ttl_core import Logger, LoopComponent, TrainTestLoop, use
from ttl_core.testing import ComponentConformance, Step

WANDB = {"x_disable_stats": True, "x_disable_meta": True, "x_save_requirements": False}


class LogMore(LoopComponent):
    """Values of batches and of epochs, some with the same name, besides the loss."""

    def on_batch_end(self, loop):
        loop.log({"step": loop.global_step, "lr": 0.5**loop.global_step})

    def on_epoch_end(self, loop):
        loop.log({"loss": loop.loss, "epoch": loop.epoch_num}, level="epoch")


class Kill(LoopComponent):
    """A kill -9 after a step, when the loggers have written what the checkpoint does not have."""

    def __init__(self, step):
        self.step = step

    def on_safe_point(self, loop):
        if loop.global_step == self.step:
            for component in loop.components:
                if isinstance(component, Logger):
                    component.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def make_loop(*components):
    """Return the loop, with further components."""
    return TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), LogMore(), *components],
        ComponentConformance.make_data(),
        ComponentConformance.make_data(1),
    )


def loggers(directory):
    """Return all components that write what is logged."""
    return [
        use("csv", directory=directory),
        use("tensorboard", directory=directory / "tensorboard"),
        use("mlflow", tracking_uri=f"sqlite:///{directory / 'mlflow.db'}"),
        use("wandb", mode="offline", directory=directory, settings=WANDB),
        use("trackio", project="agree", run_name="run"),
    ]


def run(folder, kill_step):
    """Train, or resume, with all loggers."""
    saver = use("checkpoint", directory=folder / "checkpoints", every="2 steps", signals=False)
    make_loop(*loggers(folder), saver, Kill(kill_step)).train(3)


def main():
    """Run one process after the other."""
    libraries = "mlflow", "tensorboard", "trackio", "wandb"
    for library in libraries:
        importlib.import_module(f"ttl_{library}")
    print(*(library for library in libraries if library in sys.modules))
    for module in (*libraries, "mlflow.store.tracking.sqlalchemy_store", "torch._dynamo"):
        importlib.import_module(module)
    sys.stdout.flush()
    folder, *kill_steps = sys.argv[1:]
    for kill_step in kill_steps:
        pid = os.fork()
        if not pid:
            status = 1
            try:
                run(Path(folder), int(kill_step))
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
