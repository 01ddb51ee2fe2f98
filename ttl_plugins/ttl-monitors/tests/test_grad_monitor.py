"""The behaviour of `grad-monitor`."""

import math

import pytest
import torch
from ttl_monitors import GradMonitor

from ttl_core import use

SGD = torch.optim.SGD


def make_model(dtype=None):
    """Return a layer with weights of the norm 5."""
    model = torch.nn.Linear(2, 1, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 0.0]]))
        model.bias.copy_(torch.tensor([4.0]))
    return model


def test_norms_are_those_of_the_step(run):
    """The gradient of the sum of 3 rows of ones is 3 everywhere, and the learning rate is 0.1."""
    logged = run(GradMonitor(every=1), model=make_model(), data=[torch.ones(3, 2)])
    norm = math.sqrt(3 * 3**2)
    assert {"used-grad-norm", "weight-norm", "update-ratio"} == logged.names()
    assert {0: pytest.approx(norm)} == logged.values("used-grad-norm")
    assert {0: pytest.approx(5)} == logged.values("weight-norm")
    assert {0: pytest.approx(0.1 * norm / 5)} == logged.values("update-ratio")


@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
def test_gradients_are_those_after_clipping(run, place):
    """At any place in the list; `grad-clip` logs what they were before."""
    components = [use("grad-clip", max_norm=1.0)]
    components.insert(place, GradMonitor(every=1))
    logged = run(*components, data=[torch.ones(3, 2)])
    assert {0: pytest.approx(1, rel=1e-4)} == logged.values("used-grad-norm")
    assert {0: pytest.approx(math.sqrt(27))} == logged.values("grad-norm")


def test_each_layer_can_be_measured(run):
    """The norms of the layers make those of all together."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    model.register_parameter("scale", torch.nn.Parameter(torch.ones(1)))  # without a gradient
    with torch.no_grad():
        before = {
            name: math.hypot(*(float(p.norm()) for p in model[int(name)].parameters()))
            for name in "02"
        }
    logged = run(GradMonitor(every=1, per_layer=True), model=model, data=[torch.ones(3, 2)])
    kinds = ["used-grad-norm", "weight-norm", "update-ratio"]
    assert {f"{kind}{layer}" for kind in kinds for layer in ("", "/0", "/2")} == logged.names()
    for name, norm in before.items():
        assert {0: pytest.approx(norm)} == logged.values(f"weight-norm/{name}")
    together = [logged.values(f"used-grad-norm{layer}")[0] for layer in ("", "/0", "/2")]
    assert pytest.approx(together[0]) == math.hypot(*together[1:])


def test_all_optimizers_count(run):
    """Also where they have parameters that are not the model's."""
    extra = torch.nn.Parameter(torch.tensor([12.0]))
    extra.grad = torch.tensor([4.0])
    logged = run(
        GradMonitor(every=1, per_layer=True),
        make=lambda model: [SGD(model.parameters(), lr=0.1), SGD([extra], lr=0.5)],
        model=make_model(),
        data=[torch.ones(3, 2)],
    )
    assert {0: pytest.approx(13)} == logged.values("weight-norm")
    assert {0: pytest.approx(2 / 12)} == logged.values("update-ratio/others")


def test_sparse_gradients_and_narrow_types_are_measured(run):
    """Rows that are used twice count once, and norms are of float32."""
    model = torch.nn.Embedding(10, 1, sparse=True)
    logged = run(GradMonitor(every=1), model=model, data=[torch.tensor([1, 1, 2])])
    assert {0: pytest.approx(math.sqrt(2**2 + 1))} == logged.values("used-grad-norm")
    model = make_model(torch.bfloat16)
    data = [torch.ones(3, 2, dtype=torch.bfloat16)]
    logged = run(GradMonitor(every=1), model=model, data=data)
    assert {0: pytest.approx(math.sqrt(27))} == logged.values("used-grad-norm")


def test_values_stay_tensors(run):
    """Nothing waits for the device within the batch."""
    logged = run(GradMonitor(every=2, per_layer=True))
    assert [0, 2] == [step for step, _ in logged.seen]
    assert all(torch.is_tensor(v) for _, values in logged.seen for v in values.values())


def test_nothing_is_logged_without_gradients(run):
    """An optimizer may have nothing to do in a step."""
    extra = torch.nn.Parameter(torch.ones(1))
    assert [] == run(GradMonitor(), make=lambda model: [SGD([extra])]).seen
