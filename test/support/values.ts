/** Shared by tests of values: a kernel with values of all types, and readers of failures. */
import { DateTime, Effect } from "effect"
import { KernelClient } from "../../src/mod.ts"

const imports = `
import asyncio, array, collections, dataclasses, enum, sys, time, types, uuid
from datetime import date, datetime, time as clock, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

@dataclasses.dataclass
class Point:
    x: int
    y: object = None

class Colour(enum.Enum):
    RED = "red"

class Level(enum.IntEnum):
    LOW = 1

Pair = collections.namedtuple("Pair", "left right")

class Text(str):
    pass

async def later(value, seconds=0.01):
    await asyncio.sleep(seconds)
    return value
`

/** A kernel that has all that the expressions of these tests need. */
export const prepared = Effect.tap(KernelClient.KernelClient, (kernel) => kernel.execute(imports))

/** A moment by its ISO form. */
export const utc = (iso: string): DateTime.Utc => DateTime.makeUnsafe(iso)
