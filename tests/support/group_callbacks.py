"""What callbacks of other libraries are told in one process and in several."""

from group_errors import refusal
from group_loops import facts, make_loop, whole

from ttl_core import use


class HFEvents:
    """A callback of transformers that notes what it is told of epochs."""

    def __init__(self, evaluate=None, stop=None):
        self.events, self.evaluate, self.stop = [], evaluate, stop

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.events.append(("epoch", state.epoch, state.global_step))

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.events.append(("evaluate", state.global_step, metrics["eval_loss"]))

    def on_step_end(self, args, state, control, **kwargs):
        control.should_evaluate = self.evaluate == (args.process_index, state.global_step)
        control.should_training_stop = self.stop == (args.process_index, state.global_step)


class KerasEvents:
    """The same of Keras."""

    def __init__(self):
        self.events = []

    def set_model(self, model):
        self.model = model

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(("epoch", epoch, sum(float(w.sum()) for w in self.model.get_weights())))

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(("end", epoch, logs["loss"], logs["val_loss"]))
        self.model.set_weights(self.model.get_weights())


class LightningEvents:
    """The same of Lightning."""

    def __init__(self, directory=None):
        self.events, self.directory = [], directory

    def on_train_epoch_start(self, trainer, module):
        self.events.append(("epoch", trainer.current_epoch, trainer.global_step))

    def on_train_epoch_end(self, trainer, module):
        loss = float(trainer.callback_metrics["val_loss"])
        self.events.append(("end", trainer.current_epoch, loss))
        if self.directory is not None:
            trainer.save_checkpoint(f"{self.directory}/{trainer.current_epoch}.ckpt")


CALLBACKS = {
    "hf-callback": HFEvents,
    "keras-callback": KerasEvents,
    "lightning-callback": LightningEvents,
}


def told(name):
    """Return what a callback is told, and the facts of the run."""
    callback = CALLBACKS[name]()
    loop = make_loop("metrics", use(name, callback=callback), n=21)
    loop.train(3)
    return callback.events, facts(loop)


def evaluated_by_one():
    """Return what a callback is told that asks for a validation in one process."""
    return _asked_by_one(evaluate=(1, 2))


def evaluated_without_data(event):
    """Return the error where a callback asks for it in one process, at the end of an epoch."""
    callback = HFEvents()

    def ask(args, state, control, **_):
        control.should_evaluate = (args.process_index, state.global_step) == (1, 4)

    setattr(callback, event, ask)
    return refusal(make_loop("metrics", use("hf-callback", callback=callback), valid=False))


def stopped_by_one():
    """Return what a callback is told that asks to stop in one process."""
    return _asked_by_one(stop=(1, 2))


def _asked_by_one(**asked):
    callback = HFEvents(**asked)
    loop = make_loop("metrics", use("hf-callback", callback=callback))
    loop.train(2)
    return callback.events, facts(loop)


def main_only():
    """Return how often a callback of Keras is called that is for the main process alone."""
    callback = KerasEvents()
    loop = make_loop("metrics", use("keras-callback", callback=callback, main_only=True))
    loop.train(2)
    return len(callback.events)


def lightning_checkpoints(directory):
    """Return the weights after a run whose callback of Lightning saves them."""
    callback = LightningEvents(directory)
    loop = make_loop("metrics", use("lightning-callback", callback=callback))
    loop.train(1)
    return whole(dict(loop.model.state_dict()))
