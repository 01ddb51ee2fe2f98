"""What every component has to do."""

from ttl_core.testing import ComponentConformance, Step


class TestDdp(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_implements_callback_points": "in a process that was started alone it has none",
    }

    def make_components(self):
        return [Step(), "ddp"]


class TestFsdp(TestDdp):
    def make_components(self):
        return [Step(), "fsdp"]
