"""Environments with throwaway packages, shared by the tests of installed components."""

import json

import environments
import pytest
from environments import ROOT, Environment


@pytest.fixture(scope="session")
def third_party(tmp_path_factory):
    """Return a folder with links to all that is installed here, except for ttl."""
    folder = tmp_path_factory.mktemp("third-party")
    environments.link_third_party(folder)
    return folder


@pytest.fixture(scope="session")
def core_environment(tmp_path_factory, third_party):
    """Return an environment with the core, installed by pip from its wheel, and nothing else."""
    folder = tmp_path_factory.mktemp("core")
    environment = Environment(folder / "environment", third_party)
    environment.install(*environments.build_wheels(folder, ROOT))
    # once, and not again in each copy of it
    assert "" == environment.run("-m", "compileall", "-q", environment.site_packages).success
    return environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Return a function that writes the wheel of a distribution with one module."""

    def write(name, entry_points, source="", **options):
        folder = tmp_path_factory.mktemp("wheel")
        return environments.write_wheel(folder, name, entry_points, source, **options)

    return write


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory, third_party, core_environment):
    """Return a function that makes an environment with the core and some wheels."""
    made = []

    def make(*wheels):
        made.append(Environment(tmp_path_factory.mktemp("environment"), third_party))
        made[-1].copy_packages(core_environment)
        made[-1].unpack(*wheels)
        return made[-1]

    yield make
    for each in made:
        each.close()


GOOD = """
    from ttl_core import LoopComponent

    class Good(LoopComponent):
        def __init__(self, greeting=__name__, *, times=1):
            self.greeting, self.times = greeting, times

        def on_epoch_begin(self, loop):
            print(*[self.greeting] * self.times, loop.epoch_num)
"""


@pytest.fixture(scope="session")
def good_wheel(wheel):
    """Write a package in which nothing is wrong."""
    return wheel("acme-good", {"good": "acme_good:Good"}, GOOD)


# What is wrong with each: component "x" of distribution "acme-x" with module "acme_x".
FAULTY = {
    "needy": ("acme_needy:Needy", "import not_there_at_all"),
    "angry": ("acme_angry:Angry", "raise RuntimeError('not on Mondays')"),
    "quitting": ("acme_quitting:Quitting", "raise SystemExit(0)"),
    "crashing": ("acme_crashing:Crashing", "os.abort()"),
    "lost": ("acme_lost:Nothing", ""),
    "moved": ("acme_moved_away:Moved", ""),
    "garbled": ("acme_garbled:Garbled:oops!", ""),
    "constant": ("acme_constant:ANSWER", "ANSWER = 42"),
    "fruitless": ("acme_fruitless:grow", "def grow(): return 'a plum'"),
    "fussy": ("acme_fussy:fuss", "def fuss(): raise ValueError('not this loop')"),
}


@pytest.fixture(scope="session")
def crowd(wheel, make_environment, good_wheel):
    """Return an environment with one good package, and many in which something is wrong."""
    return make_environment(
        good_wheel,
        *(wheel(f"acme-{name}", {name: value}, code) for name, (value, code) in FAULTY.items()),
        wheel("acme-future", {"future": "acme_future:Good"}, GOOD, requires=["ttl-core>=99"]),
        *(
            wheel(f"acme-twin-{i}", {"twin": f"acme_twin_{i}:Good"}, GOOD, summary="Be two. " * 20)
            for i in ("one", "two")
        ),
    )


DOCUMENTED = '''
    """Not this text."""
    from ttl_core import LoopComponent, hookimpl, hookspec

    class Points:
        @hookspec
        def documented_done(self, loop): ...

    class Documented(LoopComponent):
        """Write what is measured into a file.

        More than one line is not a summary.

        Args:
            path: where the file is written to,
                which may not be there yet.
            every: how often, in batches.
            **options: what open() takes.

        Raises:
            OSError: always.
        """

        hookspecs = Points
        after = ("metrics", "ema")
        requires = "metrics"

        def __init__(self, path, *, every=10, **options): ...

        def on_log(self, loop, metrics, level): ...

        @hookimpl(trylast=True, specname="on_epoch_end")
        def write(self, loop): ...

        @hookimpl(wrapper=True)
        def around_run(self, loop):
            return (yield)

        @hookimpl(optionalhook=True)
        def elsewhere_done(self, loop): ...

    def make(size: int = 3):
        """Make one of the size."""
        return Documented("here")

    class Stranger:
        """Be no component."""
'''


@pytest.fixture(scope="session")
def sound(wheel, make_environment, good_wheel):
    """Return an environment in which nothing is wrong."""
    components = {"documented": "Documented", "made": "make"}
    return make_environment(
        good_wheel,
        wheel(
            "acme-documented",
            {name: f"acme_documented:{value}" for name, value in components.items()},
            DOCUMENTED,
            version="2.1",
            summary="Write what is measured into a file, in any format that there is.",
        ),
    )


@pytest.fixture(scope="session")
def odd(wheel, make_environment):
    """Return an environment whose component is a class that is no component."""
    return make_environment(wheel("acme-odd", {"odd": "acme_odd:Stranger"}, DOCUMENTED))


@pytest.fixture(scope="session")
def try_each():
    """Return a function that makes a loop of each item, and returns what each raised.

    The items are expressions; what was raised is [type, text], or None. The modules that were
    imported are returned too.
    """
    program = """
        import json, sys, torch
        from ttl_core import TrainTestLoop, use

        errors = {}
        for item in sys.argv[1:]:
            try:
                TrainTestLoop(torch.nn.Identity(), [eval(item)])
                errors[item] = None
            except BaseException as error:
                text = "\\n".join([str(error), *getattr(error, "__notes__", [])])
                errors[item] = [type(error).__name__, text]
        print(json.dumps(errors))
    """

    def attempt(environment, *items):
        result = environment.torch_program(program, *items)
        return json.loads(result.success), result.imported

    return attempt
