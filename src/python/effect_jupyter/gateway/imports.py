"""Defers imports of modules that the gateway never uses, which would take most of its start. Standard library only."""

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

# Packages with which jsonschema checks further formats; no schema here has them.
OPTIONAL = ("fqdn", "isoduration", "rfc3986_validator", "rfc3987", "rfc3987_syntax", "uri_template", "webcolors")
# The application of Jupyter Server, of which one function is imported, and the format of notebooks.
UNUSED = {"jupyter_server.serverapp": ("random_ports",), "nbformat": ()}
# The value in `sys.modules` of a module that cannot be imported.
NOTHING: Any = None


class Deferred(types.ModuleType):
    """A module that is loaded when an attribute is read, or when one of `functions` is called."""

    def __init__(self, name: str, functions: tuple[str, ...]):
        super().__init__(name)
        for function in functions:
            setattr(self, function, self._later(function))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._load(), name)

    def _later(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(self._load(), name)(*args, **kwargs)

        return call

    def _load(self) -> types.ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


def defer() -> None:
    for name in OPTIONAL:
        sys.modules.setdefault(name, NOTHING)
    for name, functions in UNUSED.items():
        sys.modules.setdefault(name, Deferred(name, functions))
