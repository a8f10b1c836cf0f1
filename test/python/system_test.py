"""Process tables, permissions and orders of the sandbox, without a kernel."""

import os
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2] / "src" / "python"))

from effect_jupyter import system
from effect_jupyter.compatibility import has_parameters, is_compatible, references
from effect_jupyter.gateway.processes import limit_of
from effect_jupyter.sandbox import user


class System(unittest.TestCase):
    @unittest.skipUnless(sys.platform == "linux", "There is no /proc")
    def test_stat_fields_are_those_after_a_name_with_blanks_and_parentheses(self):
        with mock.patch("builtins.open", mock.mock_open(read_data=b"7 (a ) (b) S 3 7 7 0\n")):
            self.assertEqual(system.stat_fields(7)[:3], [b"S", b"3", b"7"])
        self.assertEqual(int(system.stat_fields(os.getpid())[1]), os.getppid())
        self.assertIn(os.getpid(), system.process_ids())

    def test_remove_tree_removes_folders_that_cannot_be_entered(self):
        with tempfile.TemporaryDirectory() as folder:
            tree = os.path.join(folder, "tree")
            os.makedirs(os.path.join(tree, "a", "b"))
            os.chmod(os.path.join(tree, "a"), 0)
            system.remove_tree(tree)
            self.assertEqual(os.listdir(folder), [])
            system.remove_tree(tree)


class Compatibility(unittest.TestCase):
    def test_references_looks_into_functions_within(self):
        def outer():
            return lambda one: one.name.other

        self.assertTrue(references(outer, "name", "other"))
        self.assertFalse(references(outer, "name", "missing"))
        self.assertTrue(has_parameters(lambda one, two: None, "one", "two"))
        self.assertFalse(has_parameters(lambda one: None, "one", "two"))

    def test_is_compatible_is_false_for_a_check_that_raises(self):
        with mock.patch("builtins.print") as said:
            self.assertFalse(is_compatible("a patch", lambda: [][0]))
        self.assertIn("a patch", said.call_args.args[0])
        self.assertTrue(is_compatible("a patch", lambda: True))


class Permissions(unittest.TestCase):
    def test_may_enter_asks_for_the_owner_then_the_group_then_others(self):
        kernel = {"uid": 5, "gid": 6}
        for uid, gid, mode, expected in (
            (5, 6, 0o100, True),
            (5, 6, 0o011, False),
            (1, 6, 0o010, True),
            (1, 6, 0o101, False),
            (1, 1, 0o001, True),
            (1, 1, 0o110, False),
        ):
            status = SimpleNamespace(st_uid=uid, st_gid=gid, st_mode=mode)
            self.assertEqual(user.may_enter(kernel, status), expected, (uid, gid, oct(mode)))

    def test_outermost_leaves_out_what_is_in_another(self):
        self.assertEqual(user.outermost({"/a/b", "/a", "/ab", "/c/d"}), ["/a", "/ab", "/c/d"])

    def test_limit_of_tells_kernels_apart(self):
        limits = {limit_of(f"{number:032x}"[::-1]) for number in range(100)}
        self.assertEqual(len(limits), 100)
        self.assertTrue(all(limit < 1 << 63 for limit in limits))


if __name__ == "__main__":
    unittest.main()
