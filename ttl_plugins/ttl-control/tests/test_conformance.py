"""The requirements on every component."""

from ttl_core import LoopComponent, use
from ttl_core.testing import ComponentConformance, Step


class LogLoss(LoopComponent):
    def on_epoch_end(self, loop):
        loop.log({"loss": loop.loss}, level="epoch")


class TestEarlyStopping(ComponentConformance):
    def make_components(self):
        # not of "valid/loss", which no component logs where there are several validation sets
        return [Step(), LogLoss(), use("early-stopping", monitor="train/loss")]


class TestLimitBatches(ComponentConformance):
    def make_components(self):
        return [Step(), use("limit-batches", train=2, valid=1)]


class TestNanGuard(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_does_not_wait_for_the_device": "on the CPU it reads values at once, which does not "
        "wait there; on a device it copies them and looks at them a batch later"
    }

    def make_components(self):
        return [Step(), "nan-guard"]


class TestOverfitBatch(ComponentConformance):
    def make_components(self):
        return [Step(), "overfit-batch"]


class TestRollback(ComponentConformance):
    opted_out = {  # noqa: RUF012
        "test_takes_streams": "going back takes data whose order can be repeated",
        "test_does_not_wait_for_the_device": "on the CPU it reads values at once, which does not "
        "wait there; on a device it reads them a step later",
    }

    def make_components(self):
        return [Step(), use("rollback", every=2, n_quiet=2)]


class TestTimeLimit(ComponentConformance):
    def make_components(self):
        return [Step(), use("time-limit", hours=1)]


class TestValidateEvery(ComponentConformance):
    opted_out = {  # noqa: RUF012
        "test_trains_without_validation": "there is nothing to validate then, which is an error"
    }

    def make_components(self):
        return [Step(), use("validate-every", steps=2)]
