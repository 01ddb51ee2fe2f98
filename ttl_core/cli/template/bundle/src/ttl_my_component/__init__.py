"""The bundle `my-component` for ttl."""

from ttl_my_component.bundle import my_component

__all__ = ["my_component"]
