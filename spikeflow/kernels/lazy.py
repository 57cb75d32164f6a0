"""Attributes that are worked out once an object, when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["lazy"]


class lazy:
    """As ``functools.cached_property``, without its lock, which a forked child may find taken by a thread that it does not have.

    Two threads that ask at once may both work the value out; it must be the same.
    """

    def __init__(self, function: Callable):
        self.function, self.name, self.__doc__ = function, function.__name__, function.__doc__

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        value = instance.__dict__[self.name] = self.function(instance)
        return value
