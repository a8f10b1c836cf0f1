"""Which mounts of a sandbox are made before bubblewrap starts."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src" / "python"))

from effect_jupyter.sandbox import mounts


class Separate(unittest.TestCase):
    def separate(self, *lines):
        return mounts.separate([word for line in lines for word in line.split()], ["/work"])

    def test_takes_binds_below_the_folders_and_leaves_the_rest(self):
        rest = ["--ro-bind / /", "--dev /dev", "--bind /work /work"]
        ours = ["--bind /work/a /work/a", "--ro-bind /dev/null /work/a/b"]
        taken, left = self.separate(*rest, *ours)
        self.assertEqual(taken, [line.split() for line in ours])
        self.assertEqual(left, " ".join(rest).split())

    def test_makes_writable_what_the_folder_is_mounted_over_later(self):
        taken, left = self.separate("--ro-bind /work/a /work/a", "--ro-bind /dev/null /work/b", "--bind /work /work")
        self.assertEqual(taken, [["--bind", "/work/a", "/work/a"]])
        self.assertEqual(left, "--ro-bind /dev/null /work/b --bind /work /work".split())

    def test_leaves_what_is_mounted_on_something_that_is_hidden(self):
        first = ["--bind /work /work", "--tmpfs /work/a", "--ro-bind /work/a/b /work/a/b"]
        taken, left = self.separate(*first, "--ro-bind /work/ab /work/ab")
        self.assertEqual(taken, [["--ro-bind", "/work/ab", "/work/ab"]])
        self.assertEqual(left, " ".join(first).split())


if __name__ == "__main__":
    unittest.main()
