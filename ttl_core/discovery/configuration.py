"""Lists of components as data, as JSON, TOML or YAML give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ttl_core.arguments import describe, did_you_mean
from ttl_core.discovery.spec import Spec, use
from ttl_core.errors import ConfigurationError, TTLError
from ttl_core.references import from_data

_RECORD = {"plugin", "name", "config", "enabled"}
"""The keys of a component in its long form."""

_RECORDED = {"position", "class", "distribution", "version", "bundles"}
"""The other keys that the manifest has."""


def from_config(items: Iterable[str | Mapping[str, Any]]) -> list[Spec]:
    """Return the list of components that data describe, as JSON, TOML or YAML give them.

    Each item is a name, a mapping of one name to its configuration, or the long form, whose keys
    are those of the manifest: `plugin`, and where wanted `name`, `config` and `enabled`. What
    `loop.manifest()` returns is such a list. In a configuration, `{"$ref": "module:object"}` is a
    class, a function or a constant, and with further keys `functools.partial` of it. Texts are
    texts, also with a colon.

    Nothing is looked up or imported before the list enters a loop. Then references are imported,
    so data are to be trusted as scripts are.

    Args:
        items: the list.

    Returns:
        A list of specs, for TrainTestLoop.

    Raises:
        ConfigurationError: an item is none of these; with its position and key.

    Example:
        >>> import json
        >>> items = json.loads('''[
        ...     {"supervised": {"loss_func": {"$ref": "torch.nn.functional:mse_loss"},
        ...                     "optimizer": {"$ref": "torch.optim:SGD", "lr": 0.1}}},
        ...     "metrics",
        ...     {"plugin": "progress", "name": "bar", "enabled": false}
        ... ]''')
        >>> from_config(items)[1:]
        [use('metrics'), use('progress', name='bar')]
    """
    if isinstance(items, str | Mapping) or not isinstance(items, Iterable):
        raise ConfigurationError(
            f"from_config() is given {describe(items)}, but takes a list. Write "
            '["metrics", {"checkpoint": {"keep": 3}}]'
        )
    return [_spec(item, f"from_config()[{i}]") for i, item in enumerate(items)]


def _spec(item: Any, where: str) -> Spec:
    record, place = _record(item, where)
    plugin, name = record["plugin"], record.get("name")
    # the manifest numbers components of one name
    given_name = re.sub(r"#\d+$", "", name) if isinstance(name, str) else name
    config = record.get("config")
    config = {} if config is None else from_data(config, place)
    try:
        spec = use(plugin, config, name=given_name)
    except TTLError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    is_enabled = record.get("enabled", True)
    if not isinstance(is_enabled, bool):
        raise ConfigurationError(
            f"{where}['enabled'] is {describe(is_enabled)}, but has to be true or false"
        )
    return Spec(spec.plugin, name, spec.config, is_enabled, tuple(record.get("bundles") or ()))


def _record(item: Any, where: str) -> tuple[Mapping[str, Any], str]:
    """Return an item in its long form, and where its configuration is."""
    if isinstance(item, str):
        return {"plugin": item}, where
    if not isinstance(item, Mapping) or not item:
        raise ConfigurationError(
            f"{where} is {describe(item)}, but has to be a name, a mapping of a name to its "
            'configuration, or one with "plugin" and "config"'
        )
    if len(item) == 1:
        ((plugin, config),) = item.items()
        if plugin == "plugin" and isinstance(config, str):
            return item, where
        return {"plugin": plugin, "config": config}, f"{where}[{plugin!r}]"
    if "plugin" not in item and "config" not in item and not item.keys() & _RECORDED:
        raise ConfigurationError(
            f"{where} has {len(item)} keys, {', '.join(map(repr, item))}. Write an item for each "
            "name: [{" + "}, {".join(f"{key!r}: ..." for key in item) + "}]"
        )
    if "plugin" not in item and "class" not in item:
        raise ConfigurationError(
            f"{where} has no key 'plugin', the name of the component that is installed; 'name' is "
            f"the one that it has in the list. Write {{'plugin': {item.get('name')!r}, ...}}"
        )
    for key in item.keys() - _RECORD - _RECORDED:
        raise ConfigurationError(
            f"{where} has the key {key!r}. {did_you_mean(str(key), _RECORD)}It is either a mapping "
            f"of one name to its configuration, or has the keys {', '.join(sorted(_RECORD))}"
        )
    if item.get("plugin") is None:
        raise ConfigurationError(
            f"{where}: component {item.get('name')!r} (class {item.get('class')}) was created in "
            "a script, not by the name of an installed component, and cannot be created from "
            "data. Leave it out, and put it into the list itself"
        )
    distribution = item.get("distribution")
    plugin = f"{distribution}/{item['plugin']}" if distribution else item["plugin"]
    return {**item, "plugin": plugin}, f"{where}['config']"
