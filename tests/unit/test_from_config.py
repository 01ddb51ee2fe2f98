"""from_config(): lists of components from data, and the manifest as such data."""

from __future__ import annotations

import functools
import json
import tomllib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import make_loop, named

from ttl_core import ConfigurationError, from_config, use

EACH_WITH_THE_SAME_PACKAGE = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)

names = st.from_regex(r"[a-z]{1,3}(-[0-9a-z]{1,2})?", fullmatch=True)
references = st.sampled_from(
    [dict, len, torch.nn.functional.mse_loss, torch.optim.SGD, json.JSONDecoder.decode]
)
partials = st.builds(
    lambda function, keywords: functools.partial(function, **keywords),
    references,
    st.dictionaries(names.map(lambda name: name.replace("-", "_")), st.integers(), min_size=1),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | references | partials,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("$ref"), inner),
    max_leaves=8,
)
configurations = st.dictionaries(st.text(min_size=1) | st.just("name"), values, max_size=4)
items = st.lists(st.tuples(st.none() | names, configurations, st.booleans()), max_size=4)


def is_equal(one, other):
    """Return whether two configured values are the same; partials and NaN have no equality."""
    if isinstance(one, functools.partial):
        return (one.func, one.keywords) == (other.func, other.keywords)
    if isinstance(one, list | dict) and type(one) is type(other) and len(one) == len(other):
        pairs = [(one[k], other[k]) for k in (one if isinstance(one, dict) else range(len(one)))]
        return all(is_equal(a, b) for a, b in pairs)
    return repr(one) == repr(other)


@EACH_WITH_THE_SAME_PACKAGE
@given(items)
def test_a_manifest_makes_the_list_that_it_is_of(configurable, items):
    """Through JSON, names, order, what is enabled and all configuration stay the same."""
    loop = make_loop(*(use(configurable, config, name=name) for name, config, _ in items))
    for component, (_, _, is_enabled) in zip(loop.components[:], items, strict=True):
        if not is_enabled:
            loop.components.disable(component)
    manifest = loop.manifest()
    again = make_loop(*from_config(json.loads(json.dumps(manifest, allow_nan=False))))
    assert manifest == again.manifest()
    received = [component.config for component in again.components]
    assert all(map(is_equal, [config for _, config, _ in items], received))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab:"), inner),
    max_leaves=8,
)


@EACH_WITH_THE_SAME_PACKAGE
@given(st.dictionaries(st.text("ab:", min_size=1), plain, max_size=4))
def test_plain_values_reach_the_component_as_they_are(configurable, config):
    """Texts stay texts, whatever is in them."""
    (component,) = make_loop(*from_config([{configurable: config}])).components
    assert config == component.config


# -- the forms ------------------------------------------------------------------------------


def test_an_item_is_a_name_or_a_name_with_configuration(configurable):
    """That is what JSON, TOML and YAML write shortest."""
    items = [configurable, {configurable: {"keep": 3}}, {configurable: None}]
    assert [
        "use('configurable')",
        "use('configurable', keep=3)",
        "use('configurable')",
    ] == [repr(item) for item in from_config(items)]


def test_the_long_form_has_keys_of_the_manifest():
    """A component may be given a name in the list, and be disabled."""
    data = tomllib.loads(
        """
        [[components]]
        plugin = "acme-ttl/ema"
        name = "slow"
        enabled = false
        config.decay = 0.9

        [[components]]
        plugin = "plugin"

        [[components]]
        plugin = { of = "plugin" }
        """
    )
    first, second, third = from_config(data["components"])
    assert "use('acme-ttl/ema', name='slow', decay=0.9)" == repr(first)
    assert [False, True, True] == [spec.is_enabled for spec in (first, second, third)]
    assert ["use('plugin')", "use('plugin', of='plugin')"] == [repr(second), repr(third)]


def test_a_disabled_item_joins_disabled(configurable):
    """It is in the list, and can be enabled."""
    components = make_loop(*from_config([{"plugin": configurable, "enabled": False}])).components
    assert not components.is_enabled(configurable)
    components.enable(configurable)


def test_references_become_what_they_refer_to(configurable):
    """Functions, classes and constants, also inside of other values; partials have keywords."""
    config = {
        "loss_func": {"$ref": "torch.nn.functional:mse_loss"},
        "optimizer": {"$ref": "torch.optim:SGD", "lr": 0.1},
        "dtypes": [{"$ref": "torch:bfloat16"}],
        "plain": "torch.optim:SGD",
        "literal": {"$$ref": "x"},
    }
    loop = make_loop(*from_config([{configurable: config}]))
    received = loop.components[0].config
    assert torch.nn.functional.mse_loss is received["loss_func"]
    assert (torch.optim.SGD, {"lr": 0.1}) == (
        received["optimizer"].func,
        received["optimizer"].keywords,
    )
    assert [torch.bfloat16] == received["dtypes"]
    assert ("torch.optim:SGD", {"$ref": "x"}) == (received["plain"], received["literal"])
    assert config == loop.manifest()[0]["config"]


def test_nothing_is_imported_before_a_list_enters_a_loop():
    """from_config() looks nothing up, as use() does."""
    (spec,) = from_config([{"nowhere": {"x": {"$ref": "not.there:Nothing"}}}])
    assert "use('nowhere', x={'$ref': 'not.there:Nothing'})" == repr(spec)


# -- errors ---------------------------------------------------------------------------------

WRONG = {
    "a text": ("metrics", r"from_config\(\) is given 'metrics', but takes a list"),
    "a mapping": ({"metrics": {}}, r"from_config\(\) is given .* takes a list"),
    "a number": (["a", 3], r"from_config\(\)\[1\] is 3, but has to be a name"),
    "nothing": ([{}], r"from_config\(\)\[0\] is {}, but has to be a name"),
    "a wrong name": ([{"Ema": {}}], r"from_config\(\)\[0\]: 'Ema' cannot be .* mean 'ema'"),
    "two names": (
        [{"ema": {}, "metrics": {}}],
        r"from_config\(\)\[0\] has 2 keys, 'ema', 'metrics'\. Write an item for each name",
    ),
    "a misspelled key": (
        [{"plugin": "ema", "confg": {}}],
        r"from_config\(\)\[0\] has the key 'confg'. Did you mean 'config'",
    ),
    "no plugin": ([{"name": "a", "config": {}}], r"has no key 'plugin'.* {'plugin': 'a', \.\.\.}"),
    "one that a script has created": (
        [{"name": "a", "class": "b.A", "config": {}}],
        r"component 'a' .* was created in a script",
    ),
    "a reference without a colon": (
        [{"ema": {"f": {"$ref": "torch.nn.Linear"}}}],
        r'Did you mean "torch\.nn:Linear"\? A reference is written',
    ),
    "no configuration": ([{"ema": 3}], r"from_config\(\)\[0\]: the configuration of 'ema' is 3"),
    "no boolean": (
        [{"plugin": "ema", "enabled": "no"}],
        r"from_config\(\)\[0\]\['enabled'\] is 'no', but has to be true or false",
    ),
    "no reference": (
        ["a", {"ema": {"on": [{"$ref": "torch.optim.SGD"}]}}],
        r"from_config\(\)\[1\]\['ema'\]\['on'\]\[0\] is .* A reference is written as",
    ),
    "no float": ([{"ema": {"x": {"$float": "much"}}}], r"\['ema'\]\['x'\] is .* A reference"),
    "an object": (
        [{"ema": {"x": {"$object": "torch.Tensor"}}}],
        r"\['ema'\]\['x'\] was an object of torch.Tensor, which data cannot hold",
    ),
    "an unknown mark": (
        [{"ema": {"x": {"$reff": "a:b"}}}],
        r"\['x'\] has the key '\$reff'. Did you mean '\$ref'.* as '\$\$reff'",
    ),
}


@pytest.mark.parametrize(("data", "problem"), WRONG.values(), ids=WRONG.keys())
def test_wrong_data_are_refused_with_their_place(data, problem):
    """The error names position and key, and what is written there."""
    with pytest.raises(ConfigurationError, match=problem):
        from_config(data)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not_there:x", "ModuleNotFoundError: No module named 'not_there'"),
        ("torch.optim:Sgd", "AttributeError: module 'torch.optim' has no attribute 'Sgd'"),
    ],
)
def test_a_reference_that_cannot_be_imported_is_an_error_with_its_place(configurable, text, reason):
    """It is raised when the component is created, and still names position and key."""
    specs = from_config(["a", {configurable: {"optimizer": {"$ref": text}}}])
    with pytest.raises(ConfigurationError) as caught:
        make_loop(specs[1])
    expected = (
        f"from_config()[1]['configurable']['optimizer'] refers to {text!r}, but importing that "
        f"raised {reason}"
    )
    assert expected == str(caught.value)


def test_a_manifest_of_components_made_in_a_script_is_refused():
    """What made them is not in the data."""
    with pytest.raises(ConfigurationError) as caught:
        from_config(make_loop(named("a")).manifest())
    assert "from_config()[0]: component 'a' (class loops.Part) was created in a" in str(
        caught.value
    )
