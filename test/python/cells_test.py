"""Each function of `cells` is compared with the one of IPython that it replaces, in the same shell."""

import ast
import contextlib
import itertools
import random
import sys
import unittest
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2] / "src" / "python"))

from effect_jupyter.kernel import cells
from ipykernel import ipkernel
from IPython.core import formatters
from IPython.core.displayhook import DisplayHook
from IPython.core.formatters import DisplayFormatter
from IPython.core.inputtransformer2 import TokenTransformBase, TransformerManager
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.macro import Macro
from IPython.core.prefilter import PrefilterChecker, PrefilterHandler, PrefilterManager, PrefilterTransformer

cells.install()
shell = InteractiveShell.instance()
own_transform, own_decide = InteractiveShell.transform_cell, InteractiveShell.should_run_async
transform, decide = own_transform.__wrapped__, own_decide.__wrapped__

# Pieces of which cells are made; each may come at any place.
PIECES = (
    *(
        "",
        " ",
        "  ",
        "\t",
        "\n",
        "\n\n",
        "    \n",
        "\f",
        "\r\n",
        "\r",
        "\u2028",
        "\x1c",
        ";",
        "\\\n",
        "# comment",
        "# what?",
    ),
    *("x = 1", "x", "1+1", "'text'", '"""', "'''", "...", "pass", "if x:\n    pass", "def f():\n    return 1", "f(x)"),
    *("%", "%%", "!", "?", "??", ",", "/", ">>> ", ">>>", "... ", "...: ", "In [1]: ", "[ins] In [2]: ", "=", "== "),
    *(
        "ls",
        "who",
        "%time 1",
        "%%time",
        "!ls",
        "len?",
        "?len",
        "x = %pwd",
        "x = !ls",
        "time",
        "pwd",
        "cd",
        "exit",
        "macro",
    ),
    *(
        "await f()",
        "async with x: pass",
        "(",
        ")",
        "[",
        "]",
        "{1: 2}",
        "print('a\\n')",
        "r'\\d'",
        "\u00e4 = 1",
        "\u2118",
    ),
)


def outcome(function, *everything, **named):
    """What a function returns, or the kind and the text of what it raises."""
    try:
        return function(*everything, **named)
    except Exception as error:
        return type(error), str(error)


def silence(test):
    """Has the test show no warnings of Python and IPython, which cells and formatters cause."""
    stack = contextlib.ExitStack()
    test.addCleanup(stack.close)
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")


def pairs(between):
    return map(between.join, itertools.product(PIECES, repeat=2))


def sources():
    """Cells of one to five pieces, each pair among them, and modules of Python itself."""
    yield from PIECES
    yield from pairs("")
    yield from pairs("\n")
    dice = random.Random(1)
    for _ in range(2000):
        yield dice.choice(("", "\n", " ")).join(dice.choices(PIECES, k=dice.randint(3, 5)))
    for name in ("ast", "bisect", "cmd", "doctest", "textwrap", "this", "token"):
        yield Path(ast.__file__).with_name(f"{name}.py").read_text()


def reverse(lines):
    return [*reversed(lines)]


class Upper(TokenTransformBase):
    @classmethod
    def find(cls, tokens_by_line):
        first = tokens_by_line and tokens_by_line[0][0]
        return cls(first.start) if first and first.string.islower() else None

    def transform(self, lines):
        return [lines[0].upper(), *lines[1:]]


class Line(PrefilterTransformer):
    def transform(self, line, continue_prompt):
        return f"{line} # line"


class Check(PrefilterChecker):
    def check(self, line_info):
        manager: Any = self.prefilter_manager
        return manager.get_handler_by_name("magic")


class Normal(PrefilterHandler):
    def handle(self, line_info):
        return f"{line_info.line} # normal"


class Subclass(TransformerManager):
    def transform_cell(self, cell):
        return f"{cell}# subclass"


@contextlib.contextmanager
def appended(items, item):
    items.append(item)
    try:
        yield
    finally:
        items.remove(item)


@contextlib.contextmanager
def assigned(name, value):
    """A trait of the shell has this value for a while."""
    before = getattr(shell, name)
    setattr(shell, name, value)
    try:
        yield
    finally:
        setattr(shell, name, before)


@contextlib.contextmanager
def prefilter(kind):
    """A manager of its own, since what is registered with one stays there."""
    manager = PrefilterManager(shell=shell)
    kind(shell=shell, prefilter_manager=manager)
    with assigned("prefilter_manager", manager):
        yield


def customizations():
    """Whatever a user may make of the way from a cell to code."""
    manager = shell.input_transformer_manager
    yield "cleanup", lambda: appended(manager.cleanup_transforms, reverse)
    yield "line", lambda: appended(manager.line_transforms, reverse)
    yield "token", lambda: appended(manager.token_transformers, Upper)
    yield "post", lambda: appended(shell.input_transformers_post, reverse)
    yield "transformer", lambda: prefilter(Line)
    yield "checker", lambda: prefilter(Check)
    yield "handler", lambda: prefilter(Normal)
    yield "manager", lambda: assigned("input_transformer_manager", Subclass())
    yield "autocall", lambda: assigned("autocall", 2)
    yield "automagic", lambda: assigned("automagic", False)
    for owner, name in (
        (manager, "transform_cell"),
        (TransformerManager, "transform_cell"),
        (shell.prefilter_manager, "prefilter_lines"),
        (PrefilterManager, "prefilter_line"),
    ):
        yield name, lambda owner=owner, name=name: mock.patch.object(owner, name, lambda *everything: "replaced")


class Transform(unittest.TestCase):
    def setUp(self):
        shell.user_ns.update(macro=Macro("x = await f()\n"), x=1)
        silence(self)

    def test_a_cell_becomes_what_ipython_makes_of_it(self):
        plain = 0
        for source in sources():
            expected = outcome(transform, shell, source)
            self.assertEqual(outcome(own_transform, shell, source), expected, repr(source))
            plain += not cells.CHANGED.search(source) and cells.parses(source)
            if isinstance(expected, str):
                named = {"transformed_cell": expected}
                self.assertEqual(
                    outcome(own_decide, shell, source, **named), decide(shell, source, **named), repr(source)
                )
                if not (cells.CHANGED.search(source) or cells.names_command(shell, source)):
                    if not cells.can_await_transformed(source):
                        self.assertFalse(cells.can_await(expected), repr(source))
        self.assertGreater(plain, 100)

    def test_customizations_are_respected(self):
        for name, customize in customizations():
            with self.subTest(name), customize():
                changed = 0
                for source in (*PIECES, *itertools.islice(pairs("\n"), 0, None, 7)):
                    expected = outcome(transform, shell, source)
                    self.assertEqual(outcome(own_transform, shell, source), expected, repr(source))
                    changed += expected != source and expected != source + "\n"
                self.assertGreater(changed, 100)

    def test_magics_and_macros_that_come_later_are_respected(self):
        for source in ("later", "later 1", "later.x", "x = later", "unknown"):
            self.assertEqual(own_transform(shell, source), transform(shell, source))
        shell.register_magic_function(lambda line: None, "line", "later")  # pyright: ignore[reportArgumentType]
        self.assertEqual(own_transform(shell, "later"), "get_ipython().run_line_magic('later', '')\n")
        with mock.patch.dict(shell.user_ns, later=1):
            self.assertEqual(own_transform(shell, "later"), "later\n")
        with mock.patch.dict(shell.user_ns, y=Macro("1\n2\n")):
            self.assertEqual(own_transform(shell, "y"), "1\n2\n")


class Value(int):
    def _repr_html_(self):
        return "<b>own</b>"


VALUES = (
    *(
        None,
        True,
        1,
        2.5,
        3j,
        "text",
        b"\0",
        [1],
        (1, "a"),
        {"a": [1]},
        {1},
        frozenset({2}),
        list(range(2000)),
        "x" * 5000,
    ),
    *(Value(1), [Value(1)], object, len, ..., range(3)),
)


def print_own(value, *printer):
    return printer[0].text("own") if printer else {"own": 1}


def registrations():
    """Formatters of a user, each as a change of a fresh `DisplayFormatter`."""
    for mime in ("text/plain", "text/html", "image/png", "application/json"):
        for kind in (int, object, list, str, "builtins.dict"):
            yield mime, lambda display, mime=mime, kind=kind: display.formatters[mime].for_type(kind, print_own)
        yield (
            mime,
            lambda display, mime=mime: display.formatters[mime].singleton_printers.update(
                {id(None): lambda value, *printer: None}
            ),
        )
        yield mime, lambda display, mime=mime: setattr(display.formatters[mime], "print_method", "__str__")
        yield mime, lambda display, mime=mime: setattr(display, "active_types", [mime])
    for name in ("ipython_display_formatter", "mimebundle_formatter"):
        yield (
            name,
            lambda display, name=name: getattr(display, name).for_type(int, lambda value, **named: {"a/b": "own"}),
        )

    class Other(formatters.HTMLFormatter):
        def __call__(self, obj):
            return "other"

    class More(formatters.BaseFormatter):
        format_type = "x/more"
        print_method = "__str__"

    class NotOurs:
        format_type = "x/foreign"

        def __call__(self, obj):
            return "foreign"

    yield "other", lambda display: display.formatters.update({"text/html": Other()})
    yield "more", lambda display: display.register_formatter(More(parent=display))
    yield "foreign", lambda display: display.formatters.update({"x/foreign": NotOurs()})
    yield "text elsewhere", lambda display: display.formatters.update({"x/text": formatters.PlainTextFormatter()})
    yield "base", lambda display: display.formatters.update({"x/base": formatters.BaseFormatter()})
    yield "none", lambda display: display.formatters.clear()
    yield "precision", lambda display: setattr(display.formatters["text/plain"], "float_precision", "1")
    yield "pprint", lambda display: setattr(display.formatters["text/plain"], "pprint", False)


class Format(unittest.TestCase):
    def assert_same(self, display):
        for value in VALUES:
            for named in ({}, {"include": ["text/html"]}, {"exclude": ["text/plain"]}, {"include": []}):
                expected = outcome(DisplayFormatter.format.__wrapped__, display, value, **named)
                self.assertEqual(outcome(display.format, value, **named), expected, (value, named))

    def setUp(self):
        silence(self)

    def test_values_are_shown_as_ipython_shows_them(self):
        display = DisplayFormatter()
        self.assert_same(display)
        stock = cells.stock_formatters()
        self.assertEqual(
            [cells.only_formatter(display, value, stock) is not None for value in VALUES],
            [True] * 14 + [False, True] + [False] * 4,
        )

    def test_formatters_of_the_user_are_asked(self):
        for name, register in registrations():
            with self.subTest(name):
                display = DisplayFormatter()
                register(display)
                self.assert_same(display)

    def test_a_formatter_whose_class_was_changed_is_asked(self):
        with mock.patch.object(formatters.HTMLFormatter, "__call__", lambda self, value: "changed"):
            display = DisplayFormatter()
            self.assert_same(display)
            self.assertIn("text/html", display.format(1)[0])


class Rest(unittest.TestCase):
    def test_a_semicolon_is_noticed_where_ipython_notices_it(self):
        ends = DisplayHook.semicolon_at_end_of_expression
        for source in sources():
            if ";" in source or "(" not in source:
                expected = outcome(ends.__wrapped__, source)
                if not isinstance(expected, tuple):
                    self.assertEqual(bool(ends(source)), bool(expected), repr(source))

    def test_parameters_are_those_of_the_function(self):
        accepts = ipkernel._accepts_parameters  # pyright: ignore[reportPrivateImportUsage]

        class Callable:
            __hash__ = None  # pyright: ignore[reportAssignmentType]

            def __call__(self, cell_id):
                pass

        class Shell:
            def run_cell(self, code, cell_id=None):
                pass

        for function in (
            len,
            print,
            Callable(),
            Shell().run_cell,
            Shell.run_cell,
            lambda **named: None,
            lambda: None,
        ) * 2:
            for names in ([], ["cell_id"], ["cell_id", "cell_meta"]):
                expected = outcome(accepts.__wrapped__, function, names)
                self.assertEqual(outcome(accepts, function, names), expected, (function, names))

    def test_events_are_those_that_are_known(self):
        called = []
        shell.events.trigger("pre_execute")
        shell.events.register("pre_execute", lambda: called.append(1))
        shell.events.trigger("pre_execute")
        self.assertEqual(called, [1])
        self.assertRaises(KeyError, shell.events.trigger, "unknown")


if __name__ == "__main__":
    unittest.main()
