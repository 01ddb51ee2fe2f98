"""Components without a bug, of kinds that a check could take for one: the kit passes them."""

import warnings

import pytest
from specimens import failure, kit_for

from ttl_core import LoopComponent, hookimpl, hookspec
from ttl_core.testing import ComponentConformance, Step


class Decay(LoopComponent):
    """A companion with state: what it does depends on how long it has run."""

    def __init__(self):
        self.n_epochs = 0

    def on_epoch_end(self, loop):
        if loop.is_training:
            self.n_epochs += 1
            loop.log({"n-epochs": self.n_epochs}, level="epoch")

    def on_optim_step(self, loop):
        for parameter in loop.model.parameters():
            parameter.data.mul_(0.9**self.n_epochs)

    def state_dict(self):
        return {"n_epochs": self.n_epochs}

    def load_state_dict(self, state):
        self.n_epochs = state["n_epochs"]


class Quiet(LoopComponent):
    """A component that only looks."""

    def on_batch_end(self, loop):
        self.newest = loop.batch_num


class Points:
    """The points of a provider."""

    @hookspec
    def sampler_on_draw(self, loop):
        """Called before each batch."""


class Sampler(LoopComponent):
    """A provider of a callback point, created by hand."""

    hookspecs = Points

    def on_batch_begin(self, loop):
        loop.hook.sampler_on_draw(loop=loop)

    @hookimpl
    def sampler_on_draw(self, loop):
        self.newest = loop.batch_num


class Clock(LoopComponent):
    """A companion that sets a loop variable."""

    def on_batch_begin(self, loop):
        loop.clock = loop.batch_num


class ReadsClock(LoopComponent):
    """It says that it needs the companion."""

    requires = ("clock",)

    def on_batch_end(self, loop):
        self.newest = loop.clock


class WithProperties(LoopComponent):
    """Its name is computed, and another property has a value during runs only."""

    loop = None

    @property
    def name(self):
        return "computed"

    @property
    def n_batches(self):
        if self.loop is None:
            raise RuntimeError("no run is under way")
        return self.loop.n_batches

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        self.loop = loop
        try:
            return (yield)
        finally:
            self.loop = None


class ZeroDecay(LoopComponent):
    """It sets a number that is there already, of another type."""

    def on_batch_begin(self, loop):
        if loop.is_training:
            loop.optimizer.param_groups[0]["weight_decay"] = 0.0


class MicroSteps(LoopComponent):
    """It counts batches by a name that is not that of steps."""

    def __init__(self):
        self.micro_step = 0

    def on_batch_end(self, loop):
        self.micro_step += loop.is_training


class Nesterov(LoopComponent):
    """It changes a setting of the optimizer, as it has declared."""

    def on_train_begin(self, loop):
        loop.optimizer.param_groups[0]["nesterov"] = True


class SavesItsArgument(LoopComponent):
    """It goes back to an argument of the saved run, and says so."""

    def __init__(self, every=1):
        self.every = every

    def on_batch_end(self, loop):
        self.newest = loop.batch_num

    def state_dict(self):
        return {"every": self.every}

    def load_state_dict(self, state):
        if self.every != state["every"]:
            warnings.warn(f"every={state['every']} is used, as saved", UserWarning, stacklevel=2)
        self.every = state["every"]


class Anything:
    """An object that has attributes of all names, as an import that is put off."""

    def __getattr__(self, name):
        if name.startswith("__") and name != "__wrapped__":
            raise AttributeError(name)
        return Anything()


class InNotebook(LoopComponent):
    """It asks whether it runs in a notebook, whose names are everywhere; and has odd attributes."""

    numpy = Anything()

    def on_batch_end(self, loop):
        try:
            self.newest = get_ipython()
        except NameError:
            self.newest = None


def kit_with(companion, make):
    """Return the kit for a component that has a companion beside it."""

    class Kit(ComponentConformance):
        def make_components(self):
            return [Step(), companion(), make()]

    return Kit()


def test_a_companion_keeps_its_state():
    """What a companion has come to is the same with and without the component."""
    kit = kit_with(Decay, Quiet)
    assert "" == failure(kit, "test_disabled_again_is_as_absent")


def test_a_provider_created_by_hand_may_be_there_twice():
    """A second one has a name with which its points may begin."""
    assert "" == failure(kit_for(Sampler), "test_two_instances_resume_exactly")


def test_a_companion_created_by_hand_may_be_required():
    """By its name, which it then keeps where those of others are changed."""
    kit = kit_with(Clock, ReadsClock)
    assert "" == failure(kit, "test_finds_others_by_what_they_are")


@pytest.mark.parametrize("check", ["test_resumes_exactly", "test_two_instances_resume_exactly"])
def test_properties_may_be_computed_when_they_are_read(check):
    """Also the name; and they may have a value at some times only."""
    assert "" == failure(kit_for(WithProperties), check)


@pytest.mark.parametrize(
    "check", ["test_leaves_optimizers_as_they_were", "test_writes_only_what_is_its_own"]
)
def test_zero_is_zero(check):
    """0 and 0.0 are the same setting."""
    assert "" == failure(kit_for(ZeroDecay), check)


def test_micro_steps_are_no_steps():
    """They grow with each batch, also of those that accumulate."""
    check = "test_leaves_rates_while_gradients_accumulate"
    assert "" == failure(kit_for(MicroSteps), check)


def test_settings_of_an_optimizer_are_declared_once():
    """What is declared for single hooks is allowed at the end of a run too."""
    check = "test_leaves_optimizers_as_they_were"
    assert "declare writes = {'optimizer'}" in failure(kit_for(Nesterov), check)
    assert "" == failure(kit_for(Nesterov, writes={"optimizer"}), check)


def test_an_argument_may_be_set_back_with_a_word():
    """A state that overrides an argument, and warns of it, is not silent."""
    assert "" == failure(kit_for(SavesItsArgument), "test_keeps_a_new_configuration")


def test_a_name_may_be_asked_for():
    """By catching a NameError; and what an attribute says of itself does not count."""
    assert "" == failure(kit_for(InNotebook), "test_uses_names_that_exist")
