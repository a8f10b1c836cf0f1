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
        return sorted(path.removeprefix(f"{self.top}/") for path in git.find(self.top, [self.top]))

    def test_returns_git_directories_and_what_refers_to_them(self):
        self.make("a/.git", "b/bare/HEAD", "b/bare/objects", "b/bare/refs", "linked", "file", "node_modules/x/.git")
        os.symlink("../a/.git", f"{self.top}/linked/.git")
        Path(f"{self.top}/file/.git").write_text("gitdir: ../b/bare")
        self.assertEqual(self.found(), ["a/.git", "a/.git", "b/bare", "b/bare", "file/.git", "linked"])

    def protected(self, *folders):
        repositories = git.Repositories()
        paths = repositories.protected([f"{self.top}/{folder}".rstrip("/") for folder in folders or [""]])
        return {path.removeprefix(f"{self.top}/") for path in paths} - {".git", "HEAD", ".git/hooks"}

    def test_protects_the_places_of_git_directories_that_are_missing(self):
        self.make("link", "file", "inside", "none", "self", "replaced", "top")
        os.symlink("../missing/store", f"{self.top}/link/.git")
        Path(f"{self.top}/file/.git").write_text("gitdir: ../gone")
        os.symlink("store", f"{self.top}/inside/.git")
        os.symlink("/missing/outside", f"{self.top}/none/.git")
        os.symlink(".git", f"{self.top}/self/.git")
        os.symlink("..", f"{self.top}/top/.git")
        Path(f"{self.top}/plain").touch()
        os.symlink("../plain/store", f"{self.top}/replaced/.git")
        folders = {"link", "file/.git", "inside", "none", "self", "replaced", "top"}
        missing = {"missing/store", "missing/store/hooks", "gone", "gone/hooks", "plain"}
        self.assertEqual(self.protected(), folders | missing)

    def test_protects_what_is_missing_in_another_folder(self):
        self.make("a/link", "b")
        os.symlink("../../b/store", f"{self.top}/a/link/.git")
        self.assertLessEqual({"a/link", "b/store", "b/store/hooks"}, self.protected("a", "b"))
        self.assertNotIn("b/store", self.protected("a"))

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
