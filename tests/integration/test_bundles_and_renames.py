"""Bundles, former names and lists from data, of installed packages and in a plain interpreter."""

import json

import pytest

SOURCE = """
    from ttl_core import LoopComponent, use

    class Clip(LoopComponent):
        only_once = True

        def __init__(self, most=1.0, *, function=None):
            self.most, self.function = most, function

        def on_batch_end(self, loop):
            print(self.most, self.function)

    def baseline(most=2.0):
        return [use("acme-clip/norm-clip", most=most)]
"""


@pytest.fixture(scope="module")
def packages(wheel, make_environment):
    """Return an environment with a component that has been renamed, and a bundle of it."""
    groups = {
        "ttl.renamed": {"clip": "norm_clip"},
        "ttl.bundles": {"clip-baseline": "acme_clip:baseline"},
    }
    return make_environment(
        wheel("acme-clip", {"norm-clip": "acme_clip:Clip"}, SOURCE, groups=groups)
    )


def test_a_former_name_is_warned_of_at_the_line_of_the_script(packages):
    """A plain interpreter shows the warning, once, and the component runs by its new name."""
    result = packages.torch_program(
        """
        import torch
        from ttl_core import TrainTestLoop, use

        for _ in range(2):
            loop = TrainTestLoop(torch.nn.Identity(), [use("clip", most=3.0)], [0])
        loop.train(1)
        print(loop.components.names())
        """
    )
    assert result.success == "3.0 None\n['norm-clip']\n"
    (warning,) = [line for line in result.err.splitlines() if "clip" in line and "Warning" in line]
    line = f"{packages.folder}/program.py:6"
    assert warning.startswith(f"{line}: FutureWarning: the component 'clip' is now called")
    assert "'norm-clip' (acme-clip 1.0)" in warning


def test_a_bundle_and_its_manifest_make_the_same_list(packages):
    """The manifest, through JSON, is a list for from_config(), and says what came from where."""
    result = packages.torch_program(
        """
        import json, torch
        from ttl_core import TrainTestLoop, bundle, from_config

        loop = TrainTestLoop(torch.nn.Identity(), bundle("clip-baseline", most=4.0), [0])
        loop.train(1)
        manifest = json.loads(json.dumps(loop.manifest()))
        again = TrainTestLoop(torch.nn.Identity(), from_config(manifest), [0])
        again.train(1)
        print(json.dumps([manifest, again.manifest() == manifest]))
        """
    )
    *lines, last = result.success.splitlines()
    (row,), is_same = json.loads(last)
    assert (["4.0 None"] * 2, True) == (lines, is_same)
    bundle = {"name": "clip-baseline", "distribution": "acme-clip", "version": "1.0"}
    assert ("norm-clip", [bundle]) == (row["plugin"], row["bundles"])


def test_data_alone_configure_a_loop(packages):
    """from_config() and bundles need no torch before a component does; references are imported."""
    result = packages.program(
        """
        import sys
        from ttl_core import bundle, from_config

        items = from_config([{"norm-clip": {"function": {"$ref": "json:dumps"}}}])
        print(items, bundle("clip-baseline"), "torch" in sys.modules)
        """
    )
    expected = (
        "[use('norm-clip', function={'$ref': 'json:dumps'})] "
        "[use('acme-clip/norm-clip', most=2.0)] False\n"
    )
    assert expected == result.success


def test_the_command_lists_bundles_and_knows_former_names(packages):
    """`ttl plugins` has a table of bundles, and `ttl show` finds a component by a former name."""
    listing = packages.ttl("plugins")
    table = listing.success.partition("\n\n")[2]
    assert table == (
        "BUNDLE         DISTRIBUTION  VERSION  SUMMARY\n"
        "clip-baseline  acme-clip     1.0      Try it out.\n"
    )
    assert set() == listing.imported
    assert packages.ttl("show", "clip").success.startswith("norm-clip  (acme-clip 1.0)\n")
