"""Which git directories a sandbox finds in a folder."""

import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2] / "src" / "python"))

from effect_jupyter.sandbox import git


class Find(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = os.path.realpath(folder.name)

    def make(self, *paths):
        for path in paths:
            os.makedirs(f"{self.top}/{path}")

    def found(self):
        return sorted(path.removeprefix(f"{self.top}/") for path in git.find(self.top))

    def test_returns_git_directories_and_what_refers_to_them(self):
        self.make("a/.git", "b/bare/HEAD", "b/bare/objects", "b/bare/refs", "linked", "file", "node_modules/x/.git")
        os.symlink("../a/.git", f"{self.top}/linked/.git")
        Path(f"{self.top}/file/.git").write_text("gitdir: ../b/bare")
        self.assertEqual(self.found(), ["a/.git", "a/.git", "b/bare", "b/bare", "file/.git", "linked"])

    def test_raises_if_there_are_more_folders_than_it_searches(self):
        self.make("a/b", "c")
        with mock.patch.object(git, "MAX_DIRECTORIES", 4):
            self.assertEqual(self.found(), [])
        with (
            mock.patch.object(git, "MAX_DIRECTORIES", 3),
            self.assertRaisesRegex(RuntimeError, "more than 3 .*allowGit"),
        ):
            self.found()


if __name__ == "__main__":
    unittest.main()
