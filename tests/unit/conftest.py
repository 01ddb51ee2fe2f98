"""Fixtures of several files of this folder."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from loops import make_loop, named
from recording import PointRecorder

from ttl_core import TrainTestLoop


@pytest.fixture
def recorder() -> PointRecorder:
    """Return a component that records the names of the callback points that fire."""
    return PointRecorder()


@pytest.fixture
def loop() -> TrainTestLoop:
    """Return a loop of the components a, b, c and d, which return their names in on_batch_end."""
    return make_loop(*map(named, "abcd"))


@pytest.fixture
def components(loop: TrainTestLoop) -> Any:
    """Return the list of the components a, b, c and d."""
    return loop.components


@pytest.fixture
def install_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """Return a function that installs a distribution for the length of a test.

    `install_distribution("acme-ttl", groups, source)` installs a module `acme_ttl` of the source,
    with entry points by group and name. A former version of it is replaced.
    """
    modules = []

    def install(
        name: str, groups: Mapping[str, Mapping[str, str]], source: str, version: str = "1.0"
    ) -> None:
        module = name.replace("-", "_")
        modules.append(module)
        sys.modules.pop(module, None)
        for former in tmp_path.glob(f"{module}-*.dist-info"):
            shutil.rmtree(former)
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
        declared = [
            line
            for group, values in groups.items()
            for line in (f"[{group}]", *(f"{key} = {value}" for key, value in values.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(declared))
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr("ttl_core.discovery.scanning._newest_scan", None)

    yield install
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def install_component(install_distribution: Callable[..., None]) -> Callable[..., str]:
    """Return a function that installs a component for the length of a test.

    `install_component("ema", source)` installs the class `Ema` in the source of a module as the
    component `ema` of the distribution `ttl-ema`, and returns its name.
    """

    def install(name: str, source: str, version: str = "1.0") -> str:
        declared = {"ttl.components": {name: f"ttl_{name}:{name.title()}"}}
        install_distribution(f"ttl-{name}", declared, source, version)
        return name

    return install


CONFIGURABLE = """
from ttl_core import LoopComponent

class Configurable(LoopComponent):
    def __init__(self, /, **config):
        self.config = config

    def on_epoch_end(self, loop):
        return "configurable"
"""


@pytest.fixture
def configurable(install_component: Callable[..., str]) -> str:
    """Install a component that takes any configuration, and return its name."""
    return install_component("configurable", CONFIGURABLE, "1.2.3")
