"""Throwaway distributions, and virtual environments in which programs use them."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from importlib.metadata import PathDistribution, distribution
from pathlib import Path
from textwrap import dedent

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = Path(pytest.__file__).parents[1]
EMPTY_TORCH = Path(__file__).with_name("empty_torch")  # only the command itself needs no more
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
OFFLINE = ["--no-index", "--no-build-isolation", "--no-compile", "--quiet"]

# The first line of every throwaway module: it leaves a file for each module that is imported.
MARK = 'import os, pathlib; pathlib.Path(os.environ["MARKS"], __name__).touch()\n'


# -- wheels ---------------------------------------------------------------------------------


def build_wheels(folder, *projects):
    """Build the wheels of projects, as for a release, and return their paths."""
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, *projects]
    subprocess.run([*PIP, *build], check=True)
    return sorted(folder.glob("*.whl"))


def write_wheel(
    folder,
    name,
    entry_points,
    source="",
    *,
    module=None,
    version="1.0",
    requires=(),
    summary="Try it out.",
    groups=None,
):
    """Write the wheel of a distribution with one module, and return its path.

    Args:
        folder: where to.
        name: the name of the distribution.
        entry_points: the objects of its components, by name.
        source: the source of its module.
        module: the name of its module; by default the distribution's, with underscores.
        version: its version.
        requires: its requirements.
        summary: its summary.
        groups: further groups of entry points, each as those of its components.
    """
    stem = name.replace("-", "_")
    path = (module or stem).replace(".", "/")
    info = f"{stem}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Summary: {summary}", *(f"Requires-Dist: {each}" for each in requires)]
    declared = []
    for group, values in {"ttl.components": entry_points, **(groups or {})}.items():
        declared += [f"[{group}]", *(f"{k} = {v}" for k, v in values.items())]
    files = {
        f"{path}.py": MARK + dedent(source),
        f"{info}/METADATA": "\n".join([*metadata, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "\n".join([*declared, ""]),
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    wheel = folder / f"{stem}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return wheel


def unpack(wheel, folder):
    """Unpack a wheel into a folder."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)


def replace_text(path, old, new):
    """Replace a text that is in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# -- what is installed here already ---------------------------------------------------------


def link_third_party(folder):
    """Link all that is installed here, except for distributions of this repository."""
    for path in SITE_PACKAGES.iterdir():
        is_ours = path.name.startswith(("ttl", "_ttl", "_editable_impl_ttl", "__editable__", "~"))
        if not is_ours and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)


def requirements_of(wheel):
    """Return the requirements that a wheel declares, as strings."""
    (info,) = (path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info"))
    return PathDistribution(info).requires or []


def link_requirements(folder, requirements):
    """Link the distributions that requirements name, and those that these require in turn."""
    found, waiting = set(), [(Requirement(text), {""}) for text in requirements]
    while waiting:
        requirement, extras = waiting.pop()
        name, marker = canonicalize_name(requirement.name), requirement.marker
        is_needed = marker is None or any(marker.evaluate({"extra": e}) for e in extras)
        key = name, frozenset(requirement.extras)
        if is_needed and key not in found:
            found.add(key)
            own_extras = {"", *requirement.extras}
            waiting += [(Requirement(r), own_extras) for r in distribution(name).requires or ()]
    files = {file.parts[0] for name, _ in found for file in distribution(name).files}
    for name in files - {"..", "__pycache__"}:
        (folder / name).symlink_to(SITE_PACKAGES / name)


# -- environments ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """How a program ended, what it printed, and which throwaway modules it imported."""

    status: int
    out: str
    err: str
    imported: set[str]

    @property
    def success(self):
        """What a program printed that ended without an error."""
        assert self.status == 0, self.out + self.err
        return self.out

    @property
    def text(self):
        """What it printed, without line breaks, for phrases that may be wrapped."""
        return " ".join(self.out.split())


class Environment:
    """A virtual environment that also sees a folder of third-party packages.

    Args:
        folder: where to create it.
        third_party: the folder.
    """

    def __init__(self, folder, third_party):
        self.folder = folder
        venv.create(folder, symlinks=True)
        self.python = folder / "bin" / "python"
        (self.site_packages,) = folder.glob("lib/*/site-packages")
        (self.site_packages / "third_party.pth").write_text(f"{third_party}\n")
        self._warm = None

    def copy_packages(self, other):
        """Copy what was installed into another environment, with its command `ttl`."""
        shutil.copytree(other.site_packages, self.site_packages, dirs_exist_ok=True)
        script = (other.folder / "bin" / "ttl").read_text()
        ttl = self.folder / "bin" / "ttl"
        ttl.write_text(script.replace(str(other.python), str(self.python)))
        ttl.chmod(0o755)

    def unpack(self, *wheels):
        """Install wheels that have neither scripts nor data, faster than pip does."""
        for wheel in wheels:
            unpack(wheel, self.site_packages)

    def install(self, *arguments):
        """Install with pip, without requirements."""
        subprocess.run(self.pip_install(*arguments), check=True, env=self.variables())

    def install_checked(self, *arguments):
        """Install with pip, where all requirements have to be there already."""
        subprocess.run([*self._pip, *arguments], check=True, env=self.variables())

    def pip_install(self, *arguments):
        """Return the command that installs something here."""
        return [*self._pip, "--no-deps", *arguments]

    @property
    def _pip(self):
        return [*PIP, "--python", self.python, "install", *OFFLINE]

    def run(self, *arguments, **variables):
        """Run Python with arguments, as a user does, with no variables set but these."""
        with Marks(self.folder / "marks") as marks:
            done = subprocess.run(
                [self.python, *arguments],
                cwd=self.folder,
                env=self.variables(MARKS=str(marks.folder), **variables),
                capture_output=True,
                text=True,
                timeout=120,
            )
        return Result(done.returncode, done.stdout, done.stderr, marks.names)

    def program(self, source, *arguments, **variables):
        """Run a program of this source."""
        return self.run(self._written(source), *arguments, **variables)

    def torch_program(self, source, *arguments, **variables):
        """Run a program that imports torch, in a process that has imported it."""
        if self._warm is None:
            self._warm = subprocess.Popen(
                [self.python, Path(__file__).with_name("warm_python.py")],
                cwd=self.folder,
                env=self.variables(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        out, err = self.folder / "out.txt", self.folder / "err.txt"
        with Marks(self.folder / "marks") as marks:
            request = {
                "path": str(self._written(source)),
                "arguments": arguments,
                "variables": {"MARKS": str(marks.folder), **variables},
                "out": str(out),
                "err": str(err),
            }
            self._warm.stdin.write(json.dumps(request) + "\n")
            self._warm.stdin.flush()
            status = int(self._warm.stdout.readline())
        return Result(status, out.read_text(), err.read_text(), marks.names)

    def _written(self, source):
        path = self.folder / "program.py"
        path.write_text(dedent(source))
        return path

    def ttl(self, *arguments, **variables):
        """Run the command that was installed with the core, with an empty torch."""
        path = {"PYTHONPATH": str(EMPTY_TORCH)}
        return self.run(self.folder / "bin" / "ttl", *arguments, **path | variables)

    @staticmethod
    def variables(**variables):
        """Return the variables of a plain shell, and these."""
        ours = ("PYTHON", "TTL_", "PIP_")
        return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | variables

    def close(self):
        """End the process that has imported torch."""
        if self._warm is not None:
            with self._warm:  # other forks of this process may hold its input open
                self._warm.kill()


class Marks:
    """The names of the throwaway modules that were imported in a block.

    Args:
        folder: where their marks are written.
    """

    def __init__(self, folder):
        self.folder = folder
        self.names = set()

    def __enter__(self):
        self.folder.mkdir(exist_ok=True)
        return self

    def __exit__(self, *exception):
        for mark in self.folder.iterdir():
            self.names.add(mark.name)
            mark.unlink()
