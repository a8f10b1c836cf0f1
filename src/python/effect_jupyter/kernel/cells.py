"""Leaves out work that IPython does for every cell and that does not affect a plain one.

Each function here replaces one of IPython or ipykernel, and calls it for every cell or value that it could matter to.
Where the replaced function is not the expected one, it stays as it is.
"""

import ast
import functools
import re
import sys

from ipykernel import ipkernel
from IPython.core import formatters
from IPython.core.autocall import IPyAutocall
from IPython.core.displayhook import DisplayHook
from IPython.core.events import EventManager
from IPython.core.formatters import BaseFormatter, DisplayFormatter, PlainTextFormatter
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.macro import Macro
from IPython.core.prefilter import PrefilterHandler, PrefilterManager

from effect_jupyter.compatibility import has_parameters, is_compatible, references

# Code that Python can parse and IPython may change: prompts, white space at the beginning and on blank lines, and ends
# of lines other than "\n".
CHANGED = re.compile(r"\A\s|\A\Z|>>>|\.\.\.|In \[|^[^\S\n]+$|[\r\v\f\x1c-\x1e\x85\u2028\u2029]", re.MULTILINE)
# The first word of a cell of one line, as IPython reads it: it may be the name of a magic.
FIRST_WORD = re.compile(r"[\w.*]*")
PARSE = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def can_await(cell):
    """Returns whether the cell may need an event loop: each that does contains one of these words."""
    return "await" in cell or "async" in cell


def can_await_transformed(cell):
    """Returns the same of what IPython makes of a cell that names no command: it adds calls, which await nothing.

    Signs at the beginning may lead to a name behind them.
    """
    return can_await(cell) or cell[0] in ",;/?\\"


class Transformations:
    """The transformations that IPython has at its start; code may add others."""

    def __init__(self):
        transformer = TransformerManager()
        self.static = self._static_parts(transformer)
        self.code = self._code()

    @staticmethod
    def _static_parts(manager):
        return (manager.cleanup_transforms, manager.line_transforms, manager.token_transformers)

    @staticmethod
    def _code():
        return (TransformerManager.transform_cell, PrefilterManager.prefilter_lines, PrefilterManager.prefilter_line)

    def are_stock(self, shell):
        """Returns whether the shell has these transformations and no others."""
        static, dynamic = shell.input_transformer_manager, shell.prefilter_manager
        return (
            type(static) is TransformerManager
            and type(dynamic) is PrefilterManager
            and self._static_parts(static) == self.static
            and self._code() == self.code
            and "transform_cell" not in vars(static)
            and vars(dynamic).keys().isdisjoint(vars(PrefilterManager))
            and not (shell.input_transformers_post or dynamic.transformers or shell.autocall)
            and all(type(checker).__module__ == PrefilterManager.__module__ for checker in dynamic.checkers)
            and type(dynamic.handlers.get("normal")) is PrefilterHandler
        )


def names_command(shell, cell):
    """Returns whether a cell begins with the name of a macro, or with one like `exit`, or is the line of a magic."""
    word = FIRST_WORD.match(cell).group()  # pyright: ignore[reportOptionalMemberAccess]
    magics = shell.magics_manager
    return isinstance(shell.user_ns.get(word), (Macro, IPyAutocall)) or (
        "\n" not in cell.rstrip("\n")
        and (any(word in known for known in magics.magics.values()) or word in getattr(magics, "lazy_magics", ()))
    )


def parses(cell):
    """Returns whether the cell is Python as it is: then it contains no magic, no help and no command of a shell."""
    try:
        compile(cell, "<>", "exec", PARSE, dont_inherit=True)
    except Exception:
        return False
    return True


def transform_if_needed(transform_cell, transformations, ask):
    """Transforms a cell unless IPython would not change it.

    `ask` is the code of the function that only needs to know whether the cell awaits something, before another one
    transforms the cell to run it.
    """

    @functools.wraps(transform_cell)
    def transform(self, raw_cell):
        if (
            type(raw_cell) is str
            and not CHANGED.search(raw_cell)
            and transformations.are_stock(self)
            and not names_command(self, raw_cell)
        ):
            if sys._getframe(1).f_code is ask and not can_await_transformed(raw_cell):
                return raw_cell
            if parses(raw_cell):
                return raw_cell if raw_cell.endswith("\n") else raw_cell + "\n"
        return transform_cell(self, raw_cell)

    return transform


def decide_by_words(should_run_async):
    """Compiles a cell, to see whether it awaits something, only if it may."""

    @functools.wraps(should_run_async)
    def decide(self, raw_cell, *, transformed_cell=None, preprocessing_exc_tuple=None):
        if type(transformed_cell) is str and not can_await(transformed_cell):
            return False
        return should_run_async(
            self, raw_cell, transformed_cell=transformed_cell, preprocessing_exc_tuple=preprocessing_exc_tuple
        )

    return decide


def remember_parameters(accepts_parameters):
    """Inspects the signature of a function once."""

    @functools.lru_cache(maxsize=16)
    def remembered(function, names):
        return accepts_parameters(function, names)

    @functools.wraps(accepts_parameters)
    def accepts(method, names):
        try:
            return dict(remembered(getattr(method, "__func__", method), tuple(names)))
        except TypeError:
            return accepts_parameters(method, names)  # not hashable

    return accepts


def silence_by_semicolon(semicolon_at_end_of_expression):
    """Reads the tokens of a cell, to see whether a semicolon ends it, only if there is one."""

    @functools.wraps(semicolon_at_end_of_expression)
    def ends(expression):
        return semicolon_at_end_of_expression(expression) if ";" in expression else False

    return staticmethod(ends)


# Types whose values have no method that a formatter calls, with what a formatter may be registered for.
PLAIN = {
    kind: (kind.__mro__, [(base.__module__, base.__name__) for base in kind.__mro__])
    for kind in (bool, bytes, complex, dict, float, frozenset, int, list, set, str, tuple, type(None))
}
TEXT = "text/plain"


def all_formatters(display):
    """Yields the formatters of a display in their order, with the types of their representations."""
    yield "", display.ipython_display_formatter
    yield "", display.mimebundle_formatter
    yield from display.formatters.items()


def stock_formatters():
    """Returns IPython's formatters that look for a method which plain values do not have: how each is called, and it."""
    kinds = [kind for kind in vars(formatters).values() if isinstance(kind, type) and issubclass(kind, BaseFormatter)]
    stock = {kind: (kind.__call__, kind.print_method.default_value) for kind in kinds}
    return {kind: (call, method) for kind, (call, method) in stock.items() if not hasattr(object, method)}


def only_formatter(display, value, stock):
    """Returns the formatter of text if the others have no representation of the value."""
    known = PLAIN.get(type(value))
    if known is None:
        return None
    bases, keys = known
    text = None
    for name, formatter in all_formatters(display):
        kind = type(formatter)
        if kind not in stock or stock[kind] != (kind.__call__, formatter.print_method):
            return None
        if kind is PlainTextFormatter and name == TEXT:
            text = formatter
            continue
        printers, later = formatter.type_printers, formatter.deferred_printers
        if (
            kind is PlainTextFormatter
            or id(value) in formatter.singleton_printers
            or (printers and any(base in printers for base in bases))
            or (later and any(key in later for key in keys))
        ):
            return None
    return text


def format_plain_values(format, stock):
    """Formats a value by the formatter of text alone if the others have no representation of it."""

    @functools.wraps(format)
    def format_value(self, obj, include=None, exclude=None):
        formatter = only_formatter(self, obj, stock) if include is None and exclude is None else None
        if formatter is None:
            return format(self, obj, include, exclude)
        text = formatter(obj)
        return {} if text is None else {TEXT: text}, {}

    return format_value


def trigger_if_registered(trigger):
    """Triggers an event if a callback is registered for it."""

    @functools.wraps(trigger)
    def run(self, event, *args, **kwargs):
        if self.callbacks[event]:
            trigger(self, event, *args, **kwargs)

    return run


def parts():
    """Yields the owner and the name of each replaced function, a check that it is as expected, and its replacement."""
    ask = ipkernel.IPythonKernel.do_execute
    yield (
        (InteractiveShell, "transform_cell"),
        lambda function: (
            has_parameters(function, "self", "raw_cell")
            and references(function, "input_transformer_manager", "prefilter_manager", "input_transformers_post")
            and references(TransformerManager.transform_cell, "cleanup_transforms", "line_transforms")
            and references(ask, "transform_cell", "should_run_async", "run_cell")
        ),
        lambda function: transform_if_needed(function, Transformations(), ask.__code__),
    )
    yield (
        (InteractiveShell, "should_run_async"),
        lambda function: has_parameters(function, "self", "raw_cell", "transformed_cell", "preprocessing_exc_tuple"),
        decide_by_words,
    )
    yield (
        (ipkernel, "_accepts_parameters"),
        lambda function: has_parameters(function, "meth", "param_names"),
        remember_parameters,
    )
    yield (
        (DisplayHook, "semicolon_at_end_of_expression"),
        lambda function: has_parameters(function, "expression"),
        silence_by_semicolon,
    )
    yield (
        (EventManager, "trigger"),
        lambda function: references(function, "callbacks"),
        trigger_if_registered,
    )
    yield (
        (DisplayFormatter, "format"),
        lambda function: (
            has_parameters(function, "self", "obj", "include", "exclude")
            and references(function, "ipython_display_formatter", "mimebundle_formatter", "formatters")
        ),
        lambda function: format_plain_values(function, stock_formatters()),
    )


def replace_if_expected(place, fits, replace):
    """Replaces the function if it is as expected, and returns whether it is."""
    owner, name = place
    function = getattr(owner, name)
    if not fits(function):
        return False
    setattr(owner, name, replace(function))
    return True


def install():
    """Replaces each function that is as expected."""
    for place, fits, replace in parts():
        is_compatible(place[1], functools.partial(replace_if_expected, place, fits, replace))
