"""Callback points that one package provides and others implement, and deprecated ones."""

import pytest

RECORDER = """
    from ttl_core import LoopComponent, hookspec

    class Points:
        @hookspec
        def disk_recorder_saved(self, loop, path):
            \"""Fires when something has been saved.\"""

        @hookspec(warn_on_impl=DeprecationWarning("implement disk_recorder_saved"))
        def disk_recorder_wrote(self, loop):
            \"""Fires no more.\"""

        @hookspec(warn_on_impl_args={"speed": DeprecationWarning("measure it yourself")})
        def disk_recorder_closed(self, loop, speed):
            \"""Fires when the disk is closed.\"""

    class Recorder(LoopComponent):
        hookspecs = Points

        def on_epoch_end(self, loop):
            print(loop.hook.disk_recorder_saved(loop=loop, path=f"epoch-{loop.epoch_num}"))
"""
LISTENER = """
    from ttl_core import LoopComponent, hookimpl

    class Listener(LoopComponent):
        @hookimpl
        def disk_recorder_saved(self, path):
            return f"{__name__} heard {path}"
"""
POLITE = LISTENER.replace("@hookimpl", "@hookimpl(optionalhook=True)")
ORPHAN = LISTENER.replace("disk_recorder_saved", "phantom_saved")
OUTDATED = """
    from ttl_core import LoopComponent, hookimpl

    class OutdatedPoint(LoopComponent):
        @hookimpl
        def disk_recorder_wrote(self, loop): ...

    class OutdatedArgument(LoopComponent):
        @hookimpl
        def disk_recorder_closed(self, loop, speed): ...

    class UpToDate(LoopComponent):
        @hookimpl
        def disk_recorder_closed(self, loop): ...
"""


@pytest.fixture(scope="module")
def packages(wheel, make_environment):
    """Return an environment with a provider, and packages that implement its points by name."""
    return make_environment(
        wheel("acme-recorder", {"disk-recorder": "acme_recorder:Recorder"}, RECORDER),
        wheel("acme-listener", {"listener": "acme_listener:Listener"}, LISTENER),
        wheel("acme-polite", {"polite": "acme_polite:Listener"}, POLITE),
        wheel("acme-orphan", {"orphan": "acme_orphan:Listener"}, ORPHAN),
        wheel(
            "acme-outdated",
            {
                "outdated-point": "acme_outdated:OutdatedPoint",
                "outdated-argument": "acme_outdated:OutdatedArgument",
                "up-to-date": "acme_outdated:UpToDate",
            },
            OUTDATED,
        ),
    )


@pytest.fixture(scope="module")
def error_of(packages, try_each):
    """Return a function from an item of a list to the type and the text of what it raised."""
    return try_each(packages, "'listener'", "'polite'", "'orphan'")[0].get


def test_one_package_implements_the_point_of_another(packages):
    """A point has the prefix of the provider's entry point, also where the list renames it."""
    result = packages.torch_program(
        """
        import torch
        from ttl_core import TrainTestLoop, use

        components = ["listener", use("disk-recorder", name="mine"), "polite"]
        TrainTestLoop(torch.nn.Identity(), components, [0]).train(1)
        """
    )
    assert result.success == "['acme_listener heard epoch-0', 'acme_polite heard epoch-0']\n"


def test_an_absent_provider_is_named(error_of):
    """Without the provider, the error names the point and the installed component to enable."""
    kind, text = error_of("'listener'")
    assert kind == "ComponentRejectedError"
    assert "component 'listener' (acme-listener 1.0)" in text
    assert "disk_recorder_saved is not a callback point" in text
    assert "'disk-recorder' (acme-recorder 1.0): add that to the list" in text


def test_a_point_without_any_provider_is_an_error(error_of):
    """If nothing that is installed provides points with the prefix, the error says that."""
    kind, text = error_of("'orphan'")
    assert kind == "ComponentRejectedError"
    assert "component 'orphan' (acme-orphan 1.0)" in text
    assert "phantom_saved is not a callback point" in text
    assert "No installed component has a name that it begins with" in text


def test_an_optional_implementation_needs_no_provider(error_of):
    """An optionalhook joins although its provider is absent."""
    assert error_of("'polite'", "not tried") is None


def test_calling_a_point_whose_provider_is_absent_names_it(packages):
    """loop.hook, too, says which installed component provides a point."""
    result = packages.torch_program(
        """
        import torch
        from ttl_core import TrainTestLoop, UnknownPointError

        try:
            TrainTestLoop(torch.nn.Identity(), ["polite"]).hook.disk_recorder_saved
        except UnknownPointError as error:
            print(error)
        """
    )
    assert "'disk-recorder' (acme-recorder 1.0): add that to the list" in result.success


# -- deprecation ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown_warnings(packages):
    """Return the warnings that a plain interpreter shows for two components of each class."""
    result = packages.torch_program(
        """
        import torch
        from ttl_core import TrainTestLoop

        outdated = ["outdated-point", "outdated-argument", "up-to-date"]
        TrainTestLoop(torch.nn.Identity(), ["disk-recorder", *outdated, *outdated])
        """
    )
    assert result.status == 0
    return [line for line in result.err.splitlines() if "Warning" in line]


@pytest.mark.parametrize(
    ("component", "what"),
    [
        ("outdated-point", "disk_recorder_wrote, which is deprecated: implement disk_recorder_sav"),
        ("outdated-argument", "disk_recorder_closed(speed), which is deprecated: measure it"),
    ],
)
def test_a_plain_interpreter_shows_a_deprecation(packages, shown_warnings, component, what):
    """The author of an implementation sees a FutureWarning that names the line to change."""
    (warning,) = (line for line in shown_warnings if f"'{component}'" in line)
    position, _, text = warning.partition(": FutureWarning: ")
    assert f"component '{component}' (acme-outdated 1.0) implements {what}" in text
    file, _, number = position.rpartition(":")
    assert f"{packages.site_packages}/acme_outdated.py" == file
    source = (packages.site_packages / "acme_outdated.py").read_text().splitlines()
    point = what.partition(",")[0].partition("(")[0]
    assert point in "".join(source[int(number) - 1 :][:2])  # from its decorator


def test_a_deprecation_is_shown_once_a_class(shown_warnings):
    """Two components of two outdated classes give two warnings, and one that is up to date none."""
    assert len(shown_warnings) == 2
