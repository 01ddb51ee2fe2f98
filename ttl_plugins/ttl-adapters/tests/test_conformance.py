"""The requirements on every component, with callbacks that users may have written."""

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class LightningCount:
    """A callback of Lightning that counts batches and logs their number."""

    n_batches = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.n_batches += 1

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("n-batches", self.n_batches)

    def state_dict(self):
        return {"n_batches": self.n_batches}

    def load_state_dict(self, state_dict):
        self.n_batches = state_dict["n_batches"]


class HFCount:
    """A callback of transformers that counts steps, as an ExportableState."""

    n_steps = 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.n_steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.n_steps += 1

    def state(self):
        return {"args": {}, "attributes": {"n_steps": self.n_steps}}


class KerasCount:
    """A callback of Keras that counts batches, and keeps values of epochs."""

    def on_train_begin(self, logs=None):
        self.n_batches, self.losses = 0, []

    def on_train_batch_begin(self, batch, logs=None):
        self.n_batches += 1

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs.get("loss"))


class TestLightningCallback(ComponentConformance):
    def make_components(self):
        return [Step(), use("lightning-callback", callback=LightningCount())]


class TestHFCallback(ComponentConformance):
    def make_components(self):
        return [Step(), use("hf-callback", callback=HFCount())]


class TestKerasCallback(ComponentConformance):
    def make_components(self):
        return [Step(), use("keras-callback", callback=KerasCount())]
