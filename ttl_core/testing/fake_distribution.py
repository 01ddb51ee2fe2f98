"""Distributions with components that are installed for the time of a test."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

from ttl_core.discovery.scanning import GROUP, scan


@contextlib.contextmanager
def fake_distribution(
    name: str,
    components: Mapping[str, object],
    *,
    version: str = "1.0",
    requires: Iterable[str] = (),
    readme: str = "",
) -> Iterator[Path]:
    """Install a distribution with components inside a with block, for tests of discovery.

    Its metadata are on `sys.path`, as pip writes them, so that everything that asks what is
    installed finds it.

    Args:
        name: the name of the distribution.
        components: by the names of its entry points what they name: a class or a function, or
            the text of an entry point, as "acme_ttl.sam:Sam".
        version: its version.
        requires: its requirements, as "ttl-core<1".
        readme: its README.

    Yields:
        The folder that is on `sys.path`, where more can be written, as a module.

    Example:
        >>> from ttl_core import LoopComponent
        >>> from ttl_core.testing import tiny_loop
        >>> class Sam(LoopComponent):
        ...     pass
        >>> with fake_distribution("acme-ttl-sam", {"acme-sam": Sam}):
        ...     print(tiny_loop("acme-sam").manifest()[0]["distribution"])
        acme-ttl-sam
    """
    module = ModuleType(f"_{name.replace('-', '_')}_components")
    lines = [f"[{GROUP}]"]
    for entry_point, value in components.items():
        if not isinstance(value, str):
            attribute = entry_point.replace("-", "_")
            setattr(module, attribute, value)
            value = f"{module.__name__}:{attribute}"
        lines.append(f"{entry_point} = {value}")
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    head += ["Summary: A fake distribution.", *(f"Requires-Dist: {one}" for one in requires)]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("\n".join([*head, "", readme]), encoding="utf-8")
        (info / "entry_points.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
        (info / "RECORD").write_text("", encoding="utf-8")
        sys.path.insert(0, text)
        sys.modules[module.__name__] = module
        scan(again=True)
        try:
            yield folder
        finally:
            sys.path.remove(text)
            del sys.modules[module.__name__]
            scan(again=True)
