"""Discovery: from entry points to components, importing nothing before its name is used."""

from ttl_core.discovery.configuration import from_config
from ttl_core.discovery.diagnosis import (
    find_incompatibility,
    is_editable,
    repair,
    stale_checkouts,
)
from ttl_core.discovery.loading import (
    Created,
    check_configuration,
    create,
    distribution_of,
    find,
    find_all,
    find_provider,
    load,
    warn_of_former_name,
)
from ttl_core.discovery.scanning import (
    GROUP,
    InstalledComponent,
    Kind,
    distributions,
    installed_bundles,
    installed_components,
    installed_distribution,
    is_same_name,
    is_shadowed,
    metadata_path,
    scan,
)
from ttl_core.discovery.spec import Spec, check_name, use

__all__ = [
    "GROUP",
    "Created",
    "InstalledComponent",
    "Kind",
    "Spec",
    "check_configuration",
    "check_name",
    "create",
    "distribution_of",
    "distributions",
    "find",
    "find_all",
    "find_incompatibility",
    "find_provider",
    "from_config",
    "installed_bundles",
    "installed_components",
    "installed_distribution",
    "is_editable",
    "is_same_name",
    "is_shadowed",
    "load",
    "metadata_path",
    "repair",
    "scan",
    "stale_checkouts",
    "use",
    "warn_of_former_name",
]
