"""Bugs in the state of a component: the kit finds each of them."""

from collections import deque

import pytest
import torch
from specimens import SPECIMENS, failure, found_by, kit_for, specimens_of

from ttl_core import LoopComponent

N_SEEN = {"batches": 0}


class Counter(LoopComponent):
    """A component without a bug: it counts batches, and has the number as its state."""

    def __init__(self):
        self.n_seen = 0

    def on_batch_end(self, loop):
        if loop.is_training:
            self.n_seen += 1
            loop.log({"n-seen": self.n_seen})

    def state_dict(self):
        return {"n_seen": self.n_seen}

    def load_state_dict(self, state):
        self.n_seen = state["n_seen"]


@found_by("resumes_exactly", "a run that resumes from the safe point at epoch 0, step 1 differs")
class Forgotten(LoopComponent):
    """It counts batches, logs the number, and has no state."""

    def __init__(self):
        self.n_seen = 0

    def on_batch_end(self, loop):
        if loop.is_training:
            self.n_seen += 1
            loop.log({"n-seen": self.n_seen})


@found_by("resumes_exactly", "'train/loss' as logged in train epoch 0")
class ForgottenScale(LoopComponent):
    """It scales gradients by a number that gets smaller, and has no state."""

    def __init__(self):
        self.scale = 1.0

    def on_backward_pass(self, loop):
        self.scale *= 0.9
        for parameter in loop.model.parameters():
            parameter.grad *= self.scale


@found_by("rewinds_exactly", "a run that rewinds to the safe point at epoch 0, step 1 differs")
class OnlyForward(Counter):
    """It takes a state only where it is further than it was, as one that resumes once."""

    def load_state_dict(self, state):
        self.n_seen = max(self.n_seen, state["n_seen"])


@found_by("resumes_exactly", "'train/n-seen' as logged in train epoch 0, batch 1 is 1")
class Misnamed(Counter):
    """It looks for its number under another name than it was saved under."""

    def load_state_dict(self, state):
        self.n_seen = state.get("n_batches", 0)


@found_by("resumes_its_own_state", "its state['best']")
class HalfLoaded(Counter):
    """It saves two values and loads one."""

    best = 0

    def on_epoch_end(self, loop):
        if loop.is_training:
            self.best = max(self.best, 10 - loop.epoch_num)

    def state_dict(self):
        return {"n_seen": self.n_seen, "best": self.best}


@found_by("resumes_its_own_state", "its attribute n_seen is")
class ForgottenAttribute(LoopComponent):
    """It counts batches for its user, who reads the attribute after a run."""

    def __init__(self):
        self.n_seen = 0

    def on_batch_end(self, loop):
        self.n_seen += loop.is_training


@found_by("resumes_exactly", "its attribute _mean is")
class ForgottenPrivate(Counter):
    """One of its two values is in its state, and the error names the other one."""

    _mean = 0.0

    def on_batch_end(self, loop):
        super().on_batch_end(loop)
        if loop.is_training:
            self._mean = 0.9 * self._mean + 0.1 * self.n_seen
            loop.log({"mean": self._mean})


@found_by("resumes_exactly", "n-in-epoch")
class ForgottenInsideEpoch(LoopComponent):
    """It counts within an epoch, and cannot resume in the middle of one."""

    n = 0

    def on_epoch_begin(self, loop):
        self.n = 0

    def on_batch_end(self, loop):
        self.n += loop.is_training
        loop.log({"n-in-epoch": self.n})


@found_by("instances_share_nothing", "the list in its attribute 'names', which is the default")
class MutableDefault(LoopComponent):
    """It keeps the default of an argument, and adds to it once: a second run adds nothing."""

    def __init__(self, names=[]):  # noqa: B006
        self.names = names

    def on_log(self, loop, metrics):
        self.names.extend(name for name in metrics if name not in self.names)


@found_by("instances_share_nothing", "the length of the class attribute ClassList.seen was")
class ClassList(LoopComponent):
    """It keeps what it has seen in a list of its class."""

    seen = []  # noqa: RUF012

    def on_batch_end(self, loop):
        self.seen.append(loop.batch_num)


@found_by("instances_share_nothing", "the class attribute ClassCounter.n_batches was")
class ClassCounter(LoopComponent):
    """It counts on its class."""

    n_batches = 0

    def on_batch_end(self, loop):
        type(self).n_batches += 1


@found_by("instances_share_nothing", "the global variable")
class GlobalCounter(LoopComponent):
    """It counts in a variable of its module."""

    def on_batch_end(self, loop):
        N_SEEN["batches"] += 1


@found_by("instances_share_nothing", "the length of its attribute seen was")
class DefaultList(LoopComponent):
    """It has a list as the default of an argument."""

    def __init__(self, seen=[]):  # noqa: B006
        self.seen = seen

    def on_batch_end(self, loop):
        self.seen.append(loop.batch_num)


@found_by("is_created_for_each_loop", "returned the same object twice")
class Singleton(LoopComponent):
    """There is only one of it."""

    instance = None

    def __new__(cls):
        cls.instance = cls.instance or super().__new__(cls)
        return cls.instance

    def on_batch_end(self, loop):
        self.batch_num = loop.batch_num


@found_by("keeps_a_new_configuration", "sets '_every' back to 1, where the script says 2 now")
class OldConfiguration(Counter):
    """It has an argument in its state, so that a new value of it is not used."""

    def __init__(self, every=1):
        super().__init__()
        self._every = every

    def state_dict(self):
        return {"n_seen": self.n_seen, "every": self._every}

    def load_state_dict(self, state):
        self.n_seen, self._every = state["n_seen"], state["every"]


@found_by("state_dict_changes_nothing", "state_dict() has an effect")
class StateResets(Counter):
    """Its state_dict() starts counting anew."""

    def state_dict(self):
        state, self.n_seen = {"n_seen": self.n_seen}, 0
        return state


@found_by("state_dict_changes_nothing", "state_dict() has an effect")
class StateFlushes(Counter):
    """Its state_dict() drops what it has not logged yet."""

    n_waiting = 0

    def on_batch_end(self, loop):
        super().on_batch_end(loop)
        self.n_waiting += 1

    def on_epoch_end(self, loop):
        loop.log({"n-waiting": self.n_waiting})
        self.n_waiting = 0

    def state_dict(self):
        self.n_waiting = 0
        return super().state_dict()


@found_by("state_dict_changes_nothing", "its state['n_saved'] is")
class StateCounts(Counter):
    """Its state_dict() counts how often it was called."""

    n_saved = 0

    def state_dict(self):
        self.n_saved += 1
        return {"n_seen": self.n_seen, "n_saved": self.n_saved}


@found_by("state_dict_changes_nothing", "AttributeError")
class StateTooEarly(Counter):
    """Its state_dict() needs what on_train_begin sets."""

    def on_train_begin(self, loop):
        self.start = loop.global_step

    def state_dict(self):
        return {"n_seen": self.n_seen, "start": self.start}


@found_by("state_can_be_saved", "torch.load(weights_only=True) refuses its state")
class NotPlain(Counter):
    """It saves an object of its own class."""

    def state_dict(self):
        return {"n_seen": self.n_seen, "counter": self}


@found_by("resumes_exactly", "StateError")
class SavesDeque(Counter):
    """It saves a deque, which torch.load(weights_only=True) refuses."""

    def state_dict(self):
        return {"n_seen": self.n_seen, "phases": deque(["train"])}


@found_by("state_can_be_saved", "it has state_dict() but no load_state_dict()")
class HalfPair(LoopComponent):
    """It saves a state that nothing loads."""

    n = 0

    def on_batch_end(self, loop):
        self.n += 1

    def state_dict(self):
        return {"n": self.n}


@found_by("state_stays_as_it_was", "the state that state_dict() returned changes")
class ReturnsItsList(LoopComponent):
    """Its state is its list itself, to which it appends."""

    def __init__(self):
        self.steps = []

    def on_batch_end(self, loop):
        if loop.is_training:
            self.steps.append(loop.global_step)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = list(state["steps"])


@found_by("state_stays_as_it_was", "the state that was loaded changes")
class KeepsWhatItLoads(ReturnsItsList):
    """It continues with the list of the state that it was given."""

    def state_dict(self):
        return {"steps": list(self.steps)}

    def load_state_dict(self, state):
        self.steps = state["steps"]


@found_by("state_stays_as_it_was", "the state that was loaded changes")
class AddsToWhatItLoads(LoopComponent):
    """It adds to the tensor of the state that it was given."""

    def __init__(self):
        self.total = torch.zeros(())

    def on_batch_end(self, loop):
        if loop.is_training:
            self.total += 1

    def state_dict(self):
        return {"total": self.total.clone()}

    def load_state_dict(self, state):
        self.total = state["total"]


@found_by("resumes_from_an_earlier_state", "does not go back to an earlier state")
class OnlyAdds(LoopComponent):
    """Loading adds to what it has gathered."""

    def __init__(self):
        self.steps = []

    def on_batch_end(self, loop):
        if loop.is_training:
            self.steps.append(loop.global_step)

    def state_dict(self):
        return {"steps": list(self.steps)}

    def load_state_dict(self, state):
        self.steps.extend(state["steps"])


@found_by("two_instances_resume_exactly", "with a second instance in the list")
class OneForAll(LoopComponent):
    """It keeps its number in a loop variable, which a second instance shares."""

    def on_train_begin(self, loop):
        loop.n_seen = 0

    def on_batch_end(self, loop):
        if loop.is_training:
            loop.n_seen += 1
            loop.log({"n-seen": loop.n_seen})

    def state_dict(self):
        return {"own": self.own}

    own = 0

    def on_safe_point(self, loop):
        self.own = loop.n_seen
        self.loop = loop

    def load_state_dict(self, state):
        self.own += state["own"]


@pytest.mark.parametrize("cls", specimens_of(__name__), ids=lambda cls: cls.__name__)
def test_finds(cls):
    """The check that is named finds the bug, and says so in words."""
    check, words = SPECIMENS[cls]
    assert words in failure(kit_for(cls), check)
