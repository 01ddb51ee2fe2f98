"""The program of the seed's document.

Nothing is changed in it but its import; a model, data, an optimizer and a scheduler are filled in.
"""

import tempfile
from types import SimpleNamespace

import torch
from torch.nn import CrossEntropyLoss
from torch.optim import Adam as MyOptimizer

from ttl_core import LoopComponent, TrainTestLoop


def MyScheduler(optimizer, n_optim_steps):  # noqa: N802
    """Decay linearly to zero."""
    return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=n_optim_steps)


my_model = torch.nn.Linear(4, 3)
my_train_data = my_valid_data = [
    SimpleNamespace(data=torch.randn(8, 4), labels=torch.randint(0, 3, (8,))) for _ in range(5)
]
folder = tempfile.TemporaryDirectory()


class MainLoop(LoopComponent):

    def on_train_begin(self, loop):
        loop.loss_func = CrossEntropyLoss()
        loop.optimizer = MyOptimizer(loop.model.parameters(), lr=3e-4)
        loop.scheduler = MyScheduler(loop.optimizer, loop.n_optim_steps)

    def on_grads_reset(self, loop):
        loop.model.zero_grad()

    def on_forward_pass(self, loop):
        model, batch = (loop.model, loop.batch)
        loop.scores = model(batch.data)

    def on_loss_compute(self, loop):
        scores, labels = (loop.scores, loop.batch.labels)
        loop.loss = loop.loss_func(scores, labels)

    def on_backward_pass(self, loop):
        loop.loss.backward()

    def on_optim_step(self, loop):
        loop.optimizer.step()
        loop.scheduler.step()

    def on_train_end(self, loop):
        print("Done.")

class SaveModel(LoopComponent):

    def on_train_end(self, loop):
        torch.save(loop.model.state_dict(), folder.name + '/model_state.pth')
        print("Saved.")

loop = TrainTestLoop(model=my_model, components=[MainLoop(), SaveModel()],
                     train_data=my_train_data, valid_data=my_valid_data)
loop.train(n_epochs=10)
