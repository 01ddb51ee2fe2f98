"""`ttl new`: names and folders that it refuses, and what it says."""

import pytest

from ttl_core.cli import main


@pytest.fixture
def new(tmp_path, monkeypatch, capsys):
    """Return a function that runs `ttl new` in an empty folder: its status and what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = main(["new", *arguments])
        out, err = capsys.readouterr()
        return status, out + err

    return run


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("GradNoise", "cannot be a component's name: names are small letters, digits and"),
        ("GradNoise", "Did you mean 'grad-noise'?"),
        ("../grad", "cannot be a component's name"),
        ("my-component", "'my-component' is the placeholder of the documentation"),
        ("name", "'name' is the placeholder"),
        ("ttl-noise", "which the distribution gets by itself: ttl new noise"),
        ("x", "has to have 2 to 27 characters"),
        ("a" * 28, "has to have 2 to 27 characters"),
        ("import", "'import' would be 'import' in the code"),
        ("none", "'none' would be 'None' in the code"),
        ("loop-component", "would be 'LoopComponent' in the code"),
        ("torch", "would be 'torch' in the code"),
        ("metrics", "the name is taken by the installed component 'metrics' (ttl-metrics "),
        ("control", "the name is taken by the installed distribution ttl-control "),
        ("core", "the name is taken by the installed distribution ttl-core "),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(new, tmp_path, name, reason):
    """The reason is said, and nothing is written."""
    status, said = new(name)
    assert status == 1
    assert reason in said
    assert [] == list(tmp_path.iterdir())


def test_a_folder_that_is_not_empty_is_refused(new, tmp_path):
    """What is in it stays as it is."""
    folder = tmp_path / "ttl-grad-noise"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    assert new("grad-noise") == (
        1,
        "ttl: the folder ttl-grad-noise is not empty: remove it, or begin elsewhere\n",
    )
    assert {"README.md": "mine"} == {path.name: path.read_text() for path in folder.iterdir()}


def test_an_empty_folder_is_filled(new, tmp_path):
    """It may have been created for the purpose."""
    (tmp_path / "ttl-grad-noise").mkdir()
    assert new("grad-noise")[0] == 0


def test_a_folder_that_cannot_be_written_is_an_error(new, tmp_path):
    """The error says which, and why."""
    (tmp_path / "ttl-grad-noise").write_text("a file")
    status, said = new("grad-noise")
    assert status == 1
    assert "ttl: the folder ttl-grad-noise cannot be written" in said


def test_two_kinds_at_once_are_refused(new, capsys):
    """A package is of one kind; argparse says so."""
    with pytest.raises(SystemExit, match="2"):
        new("grad-noise", "--logger", "--bundle")
    assert "not allowed with argument" in capsys.readouterr().err


def test_it_says_what_to_do_next(new):
    """With the commands on lines that can be pasted."""
    assert new("grad-noise") == (
        0,
        "ttl-grad-noise holds a package that is complete and tested. To install and test it:\n"
        "\n"
        "    cd ttl-grad-noise\n"
        '    pip install --editable ".[dev]" && pytest\n'
        "\n"
        "Then edit src/ttl_grad_noise, tests and README.md.\n",
    )
