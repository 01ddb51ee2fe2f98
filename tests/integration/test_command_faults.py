"""B6: installations that the command has to survive, and to report once."""

import json
import os
import time

import pytest

SOURCE = "from ttl_core import LoopComponent\nclass Good(LoopComponent): ..."


@pytest.fixture(scope="module")
def odd_imports(wheel, make_environment):
    """Install components whose imports do odd things."""
    bodies = {
        "talking": "import atexit; atexit.register(print, 'bye'); print('hello')",
        "hanging": "import time; time.sleep(600)",
        "closing": "import os; os.close(1)",
        "heavy": "import torch",
    }
    return make_environment(
        *(
            wheel(
                f"acme-{name}",
                {name: f"acme_{name}:Good"},
                f"{body}\n{SOURCE}",
            )
            for name, body in bodies.items()
        )
    )


@pytest.fixture(scope="module")
def checked(odd_imports):
    """Check them with a short time limit; return the rows and the seconds that it took."""
    started = time.monotonic()
    result = odd_imports.ttl("plugins", "--check", "--json", "--time-limit", "3")
    seconds = time.monotonic() - started
    return {row["name"]: row for row in json.loads(result.out)}, seconds, result.status


@pytest.mark.parametrize("name", ["talking", "closing", "heavy"])
def test_what_an_import_prints_or_closes_does_not_make_it_broken(checked, name):
    """Output during the import, at exit, and a closed standard output are no failure."""
    assert "available" == checked[0][name]["status"]


def test_an_import_that_hangs_is_a_row(checked):
    """It is ended after the time limit, and the others are checked all the same."""
    rows, seconds, status = checked
    assert ("broken", 1) == (rows["hanging"]["status"], status)
    assert "did not end within 3 seconds" in rows["hanging"]["problem"]
    assert seconds < 60


def test_a_namesake_in_the_current_folder_is_not_imported(make_environment, wheel, tmp_path):
    """What is checked is what is installed."""
    environment = make_environment(wheel("acme-good", {"good": "acme_good:Good"}, SOURCE))
    (tmp_path / "acme_good.py").write_text("raise SystemExit('the namesake')")
    (tmp_path / "json.py").write_text("raise SystemExit('another namesake')")
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        rows = json.loads(environment.ttl("plugins", "--check", "--json").success)
    finally:
        os.chdir(here)
    assert ["available"] == [row["status"] for row in rows]


def test_doctor_survives_a_folder_that_cannot_be_read(make_environment, wheel, tmp_path):
    """It is reported, with the fix, like everything else that is wrong."""
    environment = make_environment(wheel("acme-good", {"good": "acme_good:Good"}, SOURCE))
    result = environment.program(
        """
        import os, pathlib, sys
        sys.path.append(sys.argv[1])
        iterdir = pathlib.Path.iterdir
        def refuse(self):
            if str(self) == sys.argv[1]:
                raise PermissionError(13, "Permission denied", str(self))
            return iterdir(self)
        pathlib.Path.iterdir = refuse  # root may read every folder
        from ttl_core.cli import main
        print(main(["doctor"]))
        """,
        tmp_path,
    )
    assert "is on the path of Python but cannot be read: Permission" in " ".join(
        result.success.split()
    )
    assert result.success.endswith("1\n")


def test_doctor_survives_metadata_in_latin_1(make_environment, wheel):
    """Bytes that are no UTF-8 in the metadata of a requirement are reported."""
    environment = make_environment(
        wheel("acme-good", {"good": "acme_good:Good"}, SOURCE, requires=["acme-base"]),
        wheel("acme-base", {}, ""),
    )
    metadata = environment.site_packages / "acme_base-1.0.dist-info" / "METADATA"
    metadata.write_bytes(b"Metadata-Version: 2.1\nName: acme-base\nAuthor: Jos\xe9\nVersion: 1.0\n")
    result = environment.ttl("doctor")
    assert "" == result.err
    assert "acme-base" in result.out or "no problems" in result.out


def test_doctor_reports_one_fault_once(make_environment, wheel):
    """A directory without METADATA is not reported as broken and as left over."""
    environment = make_environment(wheel("acme-good", {"good": "acme_good:Good"}, SOURCE))
    (environment.site_packages / "acme_good-1.0.dist-info" / "METADATA").unlink()
    result = environment.ttl("doctor")
    assert 1 == "".join(result.out.split()).count("acme_good-1.0.dist-info")
