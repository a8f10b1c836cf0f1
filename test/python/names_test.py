"""Which names of files a sandbox refuses to hide or to protect."""

import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2] / "src" / "python"))

from effect_jupyter.sandbox import names


class Check(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = os.path.realpath(folder.name)

    def check(self, pattern="**/.env"):
        names.check([f"{self.top}/{pattern}"])

    def test_raises_for_a_name_that_a_pattern_matches(self):
        inner = os.fsencode(f"{self.top}/inner-") + b"\xff"
        os.mkdir(inner)
        self.check()
        with open(inner + b"/.env", "w"):
            pass
        with self.assertRaisesRegex(RuntimeError, "not UTF-8"):
            self.check()
        self.check("**/.other")

    def test_raises_if_there_are_more_folders_than_it_searches(self):
        os.makedirs(f"{self.top}/a/b")
        os.symlink("..", f"{self.top}/a/loop")
        with mock.patch.object(names, "MAX_FOLDERS", 3):
            self.check()
        with mock.patch.object(names, "MAX_FOLDERS", 2), self.assertRaisesRegex(RuntimeError, "more than 2 .*denyRead"):
            self.check()


if __name__ == "__main__":
    unittest.main()
