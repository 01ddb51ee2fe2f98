"""The component `my-component` for ttl."""

from ttl_my_component.my_component import MyComponent

__all__ = ["MyComponent"]
