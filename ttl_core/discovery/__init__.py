"""Discovery: from entry points to components, importing nothing before its name is used."""

from ttl_core.discovery.diagnosis import find_incompatibility, is_editable, stale_checkouts
from ttl_core.discovery.loading import Created, create, distribution_of, find, find_provider, load
from ttl_core.discovery.scanning import (
    GROUP,
    InstalledComponent,
    Kind,
    distributions,
    installed_components,
    installed_distribution,
    is_shadowed,
    metadata_path,
    scan,
)
from ttl_core.discovery.spec import Spec, use

__all__ = [
    "GROUP",
    "Created",
    "InstalledComponent",
    "Kind",
    "Spec",
    "create",
    "distribution_of",
    "distributions",
    "find",
    "find_incompatibility",
    "find_provider",
    "installed_components",
    "installed_distribution",
    "is_editable",
    "is_shadowed",
    "load",
    "metadata_path",
    "scan",
    "stale_checkouts",
    "use",
]
