"""Throwaway packages, built into wheels, installed into fresh environments, and used there."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
THIRD_PARTY = Path(pytest.__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
OFFLINE = ["--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--quiet"]

# The first line of every throwaway module: it leaves a trace of having been imported.
MARK = 'import os, pathlib; pathlib.Path(os.environ["MARKS"], __name__).touch()\n'


@dataclass(frozen=True)
class Done:
    """Hold how a program ended, what it said, and which throwaway modules anybody imported."""

    status: int
    out: str
    err: str
    imported: set[str]

    @property
    def said(self):
        """Return what a program printed that ended well."""
        assert self.status == 0, self.out + self.err
        return self.out

    @property
    def text(self):
        """Return what it printed with the line breaks taken out, for phrases that may wrap."""
        return " ".join(self.out.split())


class Environment:
    """Make a virtual environment with the core, the given wheels, and what they depend on."""

    def __init__(self, folder, third_party, *wheels):
        self.folder = folder
        venv.create(folder, symlinks=True)
        self.python = folder / "bin" / "python"
        (self.site_packages,) = folder.glob("lib/*/site-packages")
        (self.site_packages / "third_party.pth").write_text(f"{third_party}\n")
        self.install(*wheels)

    def install(self, *what):
        """Install wheels, or whatever else pip takes as arguments."""
        subprocess.run(self.pip_install(*what), check=True, env=self.variables())

    def pip_install(self, *what):
        """Return the command that installs something here."""
        return [*PIP, "--python", self.python, "install", *OFFLINE, *what]

    def run(self, *arguments, **variables):
        """Run Python with arguments, as a user does, with nothing set but these variables."""
        marks = self.folder / "marks"
        marks.mkdir(exist_ok=True)
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env=self.variables(MARKS=str(marks), **variables),
            capture_output=True,
            text=True,
            timeout=120,
        )
        imported = set()
        for mark in marks.iterdir():
            imported.add(mark.name)
            mark.unlink()
        return Done(done.returncode, done.stdout, done.stderr, imported)

    def program(self, source, *arguments, **variables):
        """Run a program of this source."""
        path = self.folder / "program.py"
        path.write_text(dedent(source))
        return self.run(path, *arguments, **variables)

    def ttl(self, *arguments, **variables):
        """Run the command that was installed with the core."""
        return self.run(self.folder / "bin" / "ttl", *arguments, **variables)

    @staticmethod
    def variables(**variables):
        """Return the variables of a plain shell, and these."""
        ours = ("PYTHON", "TTL_", "PIP_")
        return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | variables


@pytest.fixture(scope="session")
def third_party(tmp_path_factory):
    """Return a folder with links to all that is installed here but for what is of ttl."""
    folder = tmp_path_factory.mktemp("third-party")
    for path in THIRD_PARTY.iterdir():
        is_ours = path.name.startswith(("ttl", "_ttl", "_editable_impl_ttl", "__editable__", "~"))
        if not is_ours and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="session")
def core_wheel(tmp_path_factory):
    """Build the wheel of the core, as for a release."""
    folder = tmp_path_factory.mktemp("core")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run([*PIP, *build], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Return a function that builds the wheel of a distribution with one module."""

    def build(
        name,
        entry_points,
        source="",
        *,
        module=None,
        version="1.0",
        requires=(),
        summary="Try it out.",
    ):
        stem = name.replace("-", "_")
        path = (module or stem).replace(".", "/")
        info = f"{stem}-{version}.dist-info"
        metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        metadata += [f"Summary: {summary}", *(f"Requires-Dist: {each}" for each in requires)]
        declared = ["[ttl.components]", *(f"{k} = {v}" for k, v in entry_points.items())]
        files = {
            f"{path}.py": MARK + dedent(source),
            f"{info}/METADATA": "\n".join([*metadata, ""]),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": "\n".join([*declared, ""]),
        }
        files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
        built = tmp_path_factory.mktemp("wheel") / f"{stem}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(built, "w") as archive:
            for file, text in files.items():
                archive.writestr(file, text)
        return built

    return build


@pytest.fixture(scope="session")
def environment(tmp_path_factory, third_party, core_wheel):
    """Return a function that makes an environment of wheels."""

    def make(*wheels):
        folder = tmp_path_factory.mktemp("environment")
        return Environment(folder, third_party, core_wheel, *wheels)

    return make


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
    """Build a package with which nothing is wrong."""
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
def crowd(wheel, environment, good_wheel):
    """Return an environment where one package is good and much is wrong with the others."""
    return environment(
        good_wheel,
        *(wheel(f"acme-{name}", {name: value}, code) for name, (value, code) in FAULTY.items()),
        wheel("acme-future", {"future": "acme_future:Good"}, GOOD, requires=["ttl-core>=99"]),
        *(
            wheel(f"acme-twin-{i}", {"twin": f"acme_twin_{i}:Good"}, GOOD, summary="Be two. " * 20)
            for i in ("one", "two")
        ),
    )


@pytest.fixture(scope="session")
def try_each():
    """Return a function that puts items into a loop each, and returns what each raised.

    The items are expressions; what is raised is [type, text], or None.
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

    def attempt(place, *items):
        done = place.program(program, *items)
        return json.loads(done.said), done.imported

    return attempt
