"""What the gateway names but does not use is not loaded: that would take most of its start. Standard library only."""

import importlib
import sys
import types
from typing import Any

# Formats that jsonschema checks where it finds a package for them; nothing here has any.
OPTIONAL = ("fqdn", "isoduration", "rfc3986_validator", "rfc3987", "rfc3987_syntax", "uri_template", "webcolors")
# The whole application of Jupyter Server, of which one function is named, and notebooks as files.
UNUSED = {"jupyter_server.serverapp": ("random_ports",), "nbformat": ()}
# What Python takes for a module that cannot be imported.
NOTHING: Any = None


class Deferred(types.ModuleType):
    """A module that is loaded when something is asked of it, or when one of `functions` is called."""

    def __init__(self, name, functions):
        super().__init__(name)
        for function in functions:
            setattr(self, function, self._later(function))

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._load(), name)

    def _later(self, name):
        return lambda *args, **kwargs: getattr(self._load(), name)(*args, **kwargs)

    def _load(self):
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


def defer():
    for name in OPTIONAL:
        sys.modules.setdefault(name, NOTHING)
    for name, functions in UNUSED.items():
        sys.modules.setdefault(name, Deferred(name, functions))
