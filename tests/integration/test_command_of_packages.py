"""Subcommands of `ttl` that packages add."""

import pytest

TOOLS = '''
    def greet(parser):
        parser.description = "Print a greeting."
        parser.add_argument("name")
        parser.add_argument("--status", type=int)
        parser.set_defaults(run=_greet)

    def _greet(given):
        print("hello", given.name)
        return given.status

    def idle(parser):
        """Do nothing at all."""

    def fussy(parser):
        raise ValueError("not this parser")

    def failing(parser):
        parser.set_defaults(run=lambda given: 1 / 0)
'''


@pytest.fixture(scope="module")
def tools(wheel, make_environment):
    """Return an environment with packages that add commands."""
    names = ("greet", "idle", "fussy", "failing", "twin", "plugins")
    functions = {"twin": "greet", "plugins": "greet"}
    commands = {name: f"acme_tools:{functions.get(name, name)}" for name in names}
    others = {"twin": "acme_other:greet", "gone": "acme_other:gone"}
    return make_environment(
        wheel("acme-tools", {}, TOOLS, groups={"ttl.commands": commands}),
        wheel("acme-other", {}, TOOLS, groups={"ttl.commands": others}),
    )


def test_help_lists_the_commands_of_packages_without_importing_them(tools):
    """Each is listed by the name to call it by, with its distribution and what its docstring says.

    Without one, it has the summary of its distribution.
    """
    result = tools.ttl("--help")
    text = " ".join(result.success.split())
    assert "greet Try it out. (acme-tools) " in text
    assert "idle Do nothing at all. (acme-tools) " in text
    words = set(result.out.split())
    assert {"acme-tools/plugins", "acme-tools/twin", "acme-other/twin"} < words
    assert "twin" not in words
    assert set() == result.imported


def test_a_command_gets_its_arguments_and_gives_its_status(tools):
    """It is run with its parsed arguments, and no other package is imported."""
    result = tools.ttl("greet", "you", "--status", "3")
    assert (3, "hello you\n", "") == (result.status, result.out, result.err)
    assert {"acme_tools"} == result.imported
    assert 0 == tools.ttl("acme-tools/greet", "you").status  # where it returns None


def test_a_command_has_a_help_of_its_own(tools):
    """`ttl COMMAND --help` shows what its function has added to the parser."""
    text = tools.ttl("greet", "--help").success
    assert text.startswith("usage: ttl greet [-h] [--status STATUS] name\n\nPrint a greeting.\n")


def test_a_command_of_the_core_wins_and_says_so(tools):
    """A package cannot replace it, and its own command is run by its full name."""
    result = tools.ttl("plugins")
    assert (0, "no components are installed for ") == (result.status, result.out[:32])
    assert "ttl: a package has another command 'plugins': ttl acme-tools/plugins\n" == result.err
    assert "hello you\n" == tools.ttl("acme-tools/plugins", "you").success


def test_a_command_of_two_distributions_is_not_chosen_silently(tools):
    """The bare name is not understood, and the message lists the full ones."""
    result = tools.ttl("twin", "you")
    assert (2, "", set()) == (result.status, result.out, result.imported)
    assert "'acme-tools/twin' or 'acme-other/twin'" in result.err or (
        "'acme-other/twin' or 'acme-tools/twin'" in result.err
    )
    assert "hello you\n" == tools.ttl("acme-other/twin", "you").success


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gone", "command 'gone' (acme-other 1.0) cannot be loaded: its entry point"),
        ("fussy", "'acme_tools:fussy' raised ValueError: not this parser. Report it to the author"),
        ("idle", "'acme_tools:idle' did not call parser.set_defaults(run=...) with a function."),
    ],
)
def test_a_broken_command_is_an_error_that_says_whose_it_is(tools, name, expected):
    """It ends with 1 and names the command, its distribution and what is wrong."""
    result = tools.ttl(name)
    assert (1, "") == (result.status, result.out)
    assert expected in result.err
    assert f"ttl: command '{name}' (acme-" in result.err
    assert "Traceback" not in result.err


def test_a_command_that_raises_is_named_in_its_traceback(tools):
    """An exception passes unchanged, with a note."""
    result = tools.ttl("failing")
    assert 1 == result.status
    assert result.err.endswith(
        "ZeroDivisionError: division by zero\nttl: raised by command 'failing' (acme-tools 1.0)\n"
    )


def test_doctor_finds_what_is_wrong_with_commands(tools):
    """Commands that cannot be imported and names that are taken are reported with the fix."""
    text = tools.ttl("doctor").text
    assert "command 'gone' (acme-other 1.0) is broken: " in text
    assert "command 'plugins' (acme-tools 1.0) has the name of another one" in text
    assert "write: ttl acme-tools/plugins" in text
    assert "command 'twin' (acme-other 1.0) has the name of another one" in text
