"""The tutorial "A first package", followed to the letter in an empty environment."""

import os
import re
import subprocess

import pytest
from environments import ROOT, build_wheels
from generated import command_helps

pytestmark = pytest.mark.check

PAGE = ROOT / "docs" / "tutorials" / "first-package.md"
# a file that the text names, or a block of what is typed
STEP = re.compile(
    r"(?ms)content of `(\w[\w/.]*)`|^(````?)(console|python|markdown)\n(.*?)^\2$",
)


@pytest.mark.skipif("new" not in command_helps(), reason="this version has no `ttl new`")
def test_the_tutorial_ends_in_a_package_that_runs_by_name(make_environment, tmp_path):
    """Its commands and its code create, install, test, build and run the package."""
    environment = make_environment(*build_wheels(tmp_path, ROOT / "ttl_plugins/ttl-supervised"))
    shell = {
        "PATH": f"{environment.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # which means: without
    }
    folder, named, printed = tmp_path, None, ""
    for file, _, language, text in STEP.findall(PAGE.read_text()):
        if file:
            named = folder / file
        elif language != "console" and named:
            assert named.exists()
            named.write_text(text)
            named = None
        elif language == "python":
            printed += environment.program(text).success
        for command in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
            if command.startswith("cd "):
                folder /= command.removeprefix("cd ")
            else:
                variables = environment.variables(**shell)
                subprocess.run(command, shell=True, check=True, cwd=folder, env=variables)
    assert float(printed) > 0
    assert "half_life" not in "".join(path.read_text() for path in folder.glob("*.md"))
    assert len(list(folder.glob("dist/ttl_weight_norm-*.whl"))) == 1
