"""Values there and back, without a kernel."""

import datetime
import decimal
import json
import math
import sys
import unittest
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src" / "python"))

from effect_jupyter.values.codec import Encoder
from effect_jupyter.values.decoder import decode
from effect_jupyter.values.errors import Unsupported


def there_and_back(value):
    encoder = Encoder()
    text = encoder.text(value)
    return decode(text, [bytes(buffer) for buffer in encoder.buffers])


class Values(unittest.TestCase):
    def test_values_come_back_as_they_were(self):
        for value in (
            None,
            True,
            -1,
            2**70,
            0.1,
            "text \ud800 \0",
            b"\0\xff",
            [1, [2, {"key": None}]],
            {"$type": "x"},
            datetime.datetime(2024, 2, 29, 12, 30, 15, 123000, datetime.timezone.utc),
            decimal.Decimal("1.50"),
        ):
            self.assertEqual(there_and_back(value), value, repr(value))
        self.assertTrue(math.isnan(there_and_back(math.nan)))

    def test_a_value_without_encoding_is_refused_with_its_path(self):
        with self.assertRaises(Unsupported) as raised:
            Encoder().text({"a": [1, object()]})
        self.assertEqual(raised.exception.describe()["path"], "$.a[1]")
        json.dumps(raised.exception.describe())

    def test_an_identifier_is_sent_as_text(self):
        self.assertIn(b"12345678", Encoder().text(uuid.UUID(int=0x12345678)))


if __name__ == "__main__":
    unittest.main()
