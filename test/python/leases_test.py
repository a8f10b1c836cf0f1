"""The time since the last use of a shared gateway."""

import os
import sys
import time
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src" / "python"))

from effect_jupyter.gateway.leases import Leases
from effect_jupyter.gateway.manager import Manager


class Kernels:
    """One kernel, whose clock is said to differ from ours."""

    def __init__(self, difference, state="idle"):
        self.manager = Manager()
        self.manager._on_status(state)
        self.difference = difference

    def list_kernels(self):
        last_activity = (datetime.now(timezone.utc) + self.difference).isoformat()
        state = self.manager.execution_state
        return [{"id": "a", "connections": 0, "execution_state": state, "last_activity": last_activity}]

    def inactive_for(self, _):
        return time.monotonic() - (self.manager.active_at or 0)


class LeasesTest(unittest.TestCase):
    def unused_for(self, kernels):
        os.environ["EFFECT_JUPYTER_MESSAGES"] = "0"
        leases = Leases(lambda _: None)
        leases._used_at -= 1000
        leases._kernels = kernels
        return leases._unused_for()

    def test_a_clock_that_is_set_makes_no_difference(self):
        for hours in (-1, 0, 1):
            kernels = Kernels(timedelta(hours=hours))
            kernels.manager.active_at = time.monotonic() - 5
            self.assertAlmostEqual(self.unused_for(kernels) or 0, 5, delta=1)

    def test_a_state_counts_as_use(self):
        self.assertLess(self.unused_for(Kernels(timedelta())) or 0, 1)

    def test_a_kernel_that_runs_code_is_used(self):
        self.assertIsNone(self.unused_for(Kernels(timedelta(), "busy")))


if __name__ == "__main__":
    unittest.main()
