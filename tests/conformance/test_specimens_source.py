"""Bugs in source and packaging: the kit finds each of them."""

import functools
import importlib
import sys
from textwrap import dedent

import pytest
from specimens import SPECIMENS, failure, found_by, kit_for, specimens_of

from ttl_core import LoopComponent
from ttl_core.testing import fake_distribution


class Documented(LoopComponent):
    """A component that does nothing.

    Args:
        every: how often.
    """

    def __init__(self, every: int = 1):
        if not isinstance(every, int):
            raise TypeError(f"every is {every!r}, but has to be a whole number")
        self.every = every

    def on_batch_end(self, loop):
        self.newest = loop.batch_num


@found_by("implements_callback_points", "it implements no callback point")
class NoHook(LoopComponent):
    """Its hook has no name of a point."""

    def after_batch(self, loop):
        loop.stop()


@found_by("implements_callback_points", "did you mean the point on_batch_end?")
class MisspelledHook(LoopComponent):
    """One of its hooks is misspelled, so that nothing looks at it."""

    def on_batch_begin(self, loop):
        self.newest = loop.batch_num

    def om_batch_end(self, loop):
        self.newest = None


@found_by("implements_callback_points", "on_batch_ends")
class WrongPoint(LoopComponent):
    """One of its hooks is none."""

    def on_batch_ends(self, loop):
        self.newest = loop.batch_num


@found_by("uses_names_that_exist", "'suppress' in SwallowedName.on_batch_end, ")
class SwallowedName(LoopComponent):
    """It uses a name that it does not import, and catches the error."""

    def on_batch_end(self, loop):
        try:
            with suppress(KeyError):  # noqa: F821
                self.newest = loop.metrics["train/loss"]
        except Exception:
            pass


@found_by("uses_names_that_exist", "'math' in UndefinedInProperty.size.<locals>.<lambda>, ")
class UndefinedInProperty(LoopComponent):
    """It uses a name that it does not import where no run gets to."""

    def on_batch_end(self, loop):
        self.newest = loop.batch_num

    @property
    def size(self):
        return [*map(lambda n: math.sqrt(n), [self.newest])]  # noqa: F821, C417


@found_by("uses_names_that_exist", "'math' in UndefinedInCache.size, ")
class UndefinedInCache(LoopComponent):
    """The same in a property that is computed once."""

    def on_batch_end(self, loop):
        self.newest = loop.batch_num

    @functools.cached_property
    def size(self):
        return math.sqrt(self.newest)  # noqa: F821


@found_by("documents_its_arguments", "does not document its argument 'decay'")
class UndocumentedArgument(Documented):
    """A component with an argument.

    Args:
        every: how often.
    """

    def __init__(self, every: int = 1, decay: float = 0.5):
        self.every, self.decay = every, decay


class _NoDocstring(LoopComponent):
    def on_batch_end(self, loop):
        self.newest = loop.batch_num


_NoDocstring = found_by("documents_its_arguments", "has no docstring")(_NoDocstring)


@found_by("refuses_unknown_arguments", "accepts an argument 'no_such_argument'")
class AnyArgument(Documented):
    """It takes any argument.

    Args:
        **options: options.
    """

    def __init__(self, **options):
        self.options = options


@found_by("refuses_arguments_of_wrong_types", "its argument 'every' (<class 'int'>) accepts")
class Unchecked(Documented):
    """It looks at its argument late.

    Args:
        every: how often.
    """

    def __init__(self, every: int = 1):
        self.every = every


@found_by("refuses_arguments_of_wrong_types", "does not name it: TypeError: '<' not supported")
class UnclearError(Documented):
    """It compares its argument with a number.

    Args:
        every: how often.
    """

    def __init__(self, every: int = 1):
        if every < 1:
            raise ValueError("every has to be at least 1")
        self.every = every


@found_by("has_a_useful_repr", "tells its address and nothing else")
class AddressOnly(Documented):
    """Its repr is that of every object."""

    __repr__ = object.__repr__


@found_by("has_a_useful_repr", "AttributeError")
class ReprFails(Documented):
    """Its repr needs a run."""

    def __repr__(self):
        return f"ReprFails({self.newest})"


@pytest.mark.parametrize("cls", specimens_of(__name__), ids=lambda cls: cls.__name__)
def test_finds(cls):
    """The check that is named finds the bug, and says so in words."""
    check, words = SPECIMENS[cls]
    assert words in failure(kit_for(cls), check)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("threading.Thread(target=time.sleep, args=[9], daemon=True).start()", "still runs"),
        ("signal.signal(signal.SIGUSR1, signal.SIG_IGN)", "the handler of SIGUSR1 was"),
        ("atexit.register(print)", "the number of atexit functions was"),
        ("torch.manual_seed(0)", "the global random stream of torch was"),
        ("random.seed(0)", "the global random stream of Python was"),
        ("torch.set_default_dtype(torch.float64)", "the default dtype was"),
        ("torch.set_default_device('meta')", "the default device was"),
        ("os.environ['TTL_BUG'] = '1'", "the environment variable TTL_BUG was missing"),
        ("pathlib.Path('bug.txt').write_text('x')", "opened the file"),
        ("STREAM = open(os.devnull)", "is still open"),
        ("pathlib.Path('bug').mkdir()", "made the folder 'bug'"),
        ("warnings.simplefilter('ignore')", "warnings.filters was"),
        ("os.chdir('/')", "the working directory was"),
        (
            "logging.getLogger().addHandler(logging.NullHandler())",
            "the handlers of the root logger was",
        ),
        ("raise ImportError('no such library')", "fails: ImportError: no such library"),
    ],
)
def test_finds_what_an_import_does(line, words, tmp_path, monkeypatch):
    """The import of a package with one line too many is found, in words."""
    monkeypatch.chdir(tmp_path)
    names = "atexit logging os pathlib random signal threading time torch warnings"
    source = f"""
        import {names.replace(" ", ", ")}
        from ttl_core import LoopComponent

        class Acme(LoopComponent):
            def on_batch_end(self, loop):
                self.newest = loop.batch_num
    """
    with fake_distribution("acme-ttl", {"acme": "acme_ttl:Acme"}) as folder:
        module = folder / "acme_ttl.py"
        module.write_text(dedent(source))
        importlib.import_module("acme_ttl")
        module.write_text(dedent(source) + line + "\n")
        assert words in failure(kit_for(lambda: "acme"), "test_imports_without_side_effects")
    del sys.modules["acme_ttl"]


class Ema(Documented):
    """A component of another name than its entry point."""


class Named(Documented):
    """A component that declares a name."""

    name = "other"


@pytest.mark.parametrize(
    ("name", "cls", "readme", "words"),
    [
        ("average", Ema, "# `average`", "its class Ema, which as a name in a list would be 'ema'"),
        ("named", Named, "# `named`", "it declares name='other'"),
        ("documented", Documented, "# acme", "does not mention 'documented'"),
        ("documented", Documented, "", "is missing, and so does not mention 'documented'"),
    ],
)
def test_finds_names_that_differ(name, cls, readme, words):
    """An entry point, a class, a declared name and a README that do not agree are found."""
    with fake_distribution("acme-ttl", {name: cls}, readme=readme):
        assert words in failure(kit_for(lambda: name), "test_names_agree")


def test_accepts_names_that_agree():
    """An entry point, a class and a README that agree pass."""
    with fake_distribution("acme-ttl", {"documented": Documented}, readme="It has `documented`."):
        assert "" == failure(kit_for(lambda: "documented"), "test_names_agree")


def test_finds_what_the_first_one_uses_up():
    """A component that takes its name from a list of its module leaves fewer for the next one."""
    source = """
        from ttl_core import LoopComponent

        COLORS = ["red", "green"]

        class Acme(LoopComponent):
            def __init__(self):
                self.color = COLORS.pop() if COLORS else "black"

            def on_batch_end(self, loop):
                self.newest = loop.batch_num
    """
    with fake_distribution("acme-ttl", {"acme": "acme_ttl:Acme"}) as folder:
        (folder / "acme_ttl.py").write_text(dedent(source))
        text = failure(kit_for(lambda: "acme"), "test_leaves_enough_for_the_next_one")
    assert "acme_ttl.COLORS had 2 items, and 1 after a component was created" in text
    del sys.modules["acme_ttl"]


def test_accepts_an_import_without_side_effects():
    """A package that only defines passes."""
    source = """
        from ttl_core import LoopComponent

        class Acme(LoopComponent):
            def on_batch_end(self, loop):
                self.newest = loop.batch_num
    """
    with fake_distribution("acme-ttl", {"acme": "acme_ttl:Acme"}) as folder:
        (folder / "acme_ttl.py").write_text(dedent(source))
        assert "" == failure(kit_for(lambda: "acme"), "test_imports_without_side_effects")
    del sys.modules["acme_ttl"]
