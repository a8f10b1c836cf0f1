"""The command that runs in bubblewrap."""

import shlex
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src" / "python"))

from effect_jupyter.sandbox import bubblewrap

BEFORE = "{ socat one; } &\n_srt_http=$!\ntrap 'kill %1' EXIT\n"
WAIT = """_srt_since=
while [ -r /proc/net/sockstat ] && kill -0 "$_srt_http"; do
  [ "$_srt_up" -lt 2 ] || break
done
unset _srt_since _srt_up
"""
AFTER = "apply-seccomp bash -c 'exec python'"


class AtOnce(unittest.TestCase):
    def test_leaves_out_the_wait_for_the_relays_and_the_shell_around_it(self):
        words = ["/bin/bash", "-c", shlex.join(["/bin/bash", "-c", BEFORE + WAIT + AFTER])]
        self.assertEqual(bubblewrap.at_once(words), ["/bin/bash", "-c", BEFORE + AFTER])

    def test_leaves_other_commands_as_they_are(self):
        for inner in (BEFORE + AFTER, BEFORE + WAIT + WAIT + AFTER):
            words = ["/bin/bash", "-c", shlex.join(["/bin/bash", "-c", inner])]
            self.assertEqual(bubblewrap.at_once(words), words)
        for words in (
            ["/bin/bash", "-c", BEFORE + WAIT + AFTER],
            ["/bin/bash", "-c", shlex.join(["/bin/sh", "-c", BEFORE + WAIT + AFTER])],
            ["/bin/bash", "-c", shlex.join(["/bin/bash", "-c", BEFORE + WAIT + AFTER, "more"])],
            ["python", "main.py"],
            [],
        ):
            self.assertEqual(bubblewrap.at_once(words), words)


if __name__ == "__main__":
    unittest.main()
