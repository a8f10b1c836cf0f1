/**
 * Values, not text: variables are set, expressions evaluated and functions called by schemas.
 *
 * `node --conditions=effect-jupyter-source examples/typed_values.ts` runs it.
 *
 * @module
 */
import { NodeRuntime } from "@effect/platform-node"
import { BigDecimal, Console, DateTime, Duration, Effect, Layer, Option, Schema } from "effect"
import { KernelClient, KernelGateway } from "effect-jupyter"

const Item = Schema.Struct({
  name: Schema.String,
  price: Schema.BigDecimal,
  tags: Schema.ReadonlySet(Schema.String),
})

class Order extends Schema.Class<Order>("Order")({
  id: Schema.BigInt,
  at: Schema.DateTimeUtc,
  items: Schema.Array(Item),
  note: Schema.OptionFromNullOr(Schema.String),
}) {}

const Invoice = Schema.Struct({
  order: Schema.BigInt,
  total: Schema.BigDecimal,
  due: Schema.DateTimeUtc,
  grace: Schema.Duration,
  checksum: Schema.Uint8Array,
})

const definitions = `
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

@dataclass
class Invoice:
    order: int
    total: Decimal
    due: datetime
    grace: timedelta
    checksum: bytes

async def bill(order, *, vat):
    total = sum(item["price"] for item in order["items"]) * (1 + vat)
    checksum = hashlib.sha256(repr(order).encode()).digest()
    return Invoice(order["id"], total, order["at"] + timedelta(days=30), timedelta(days=1, hours=12), checksum)
`

const program = Effect.gen(function* () {
  const kernel = yield* KernelClient.KernelClient
  yield* kernel.execute(definitions)

  yield* Console.log("A value goes in by its schema, whatever characters are in it:")
  const order = new Order({
    id: 9007199254740993n,
    at: DateTime.makeUnsafe("2026-01-31T12:00:00Z"),
    items: [
      { name: `"quoted" \\ and\nbroken`, price: BigDecimal.fromStringUnsafe("9.90"), tags: new Set(["new"]) },
      { name: "🎁", price: BigDecimal.fromStringUnsafe("0.10"), tags: new Set() },
    ],
    note: Option.none(),
  })
  yield* kernel.set("order", order, { schema: Order })
  const { text = "" } = yield* kernel.execute(
    "for key, value in order.items(): print(key, type(value).__name__)",
  )
  yield* Console.log(text.replace(/^/gm, "  "))

  yield* Console.log("An expression is evaluated, and its value decoded:")
  const names = yield* kernel.evaluate(
    "{item['name']: item['price'] for item in order['items']}",
    Schema.ReadonlyMap(Schema.String, Schema.BigDecimal),
  )
  for (const [name, price] of names) {
    yield* Console.log(`  ${JSON.stringify(name)} costs ${BigDecimal.format(price)}`)
  }

  yield* Console.log("A function is called, here an asynchronous one that returns a dataclass:")
  // Arguments go in as what they are; an instance of a class has to be encoded first.
  const encoded = yield* Schema.encodeEffect(Order)(order)
  const invoice = yield* kernel.call("bill", [encoded], {
    kwargs: { vat: BigDecimal.fromStringUnsafe("0.25") },
    returns: Invoice,
  })
  yield* Console.log(`  order ${invoice.order}: ${BigDecimal.format(invoice.total)}`)
  yield* Console.log(
    `  due ${DateTime.formatIsoDateUtc(invoice.due)}, and ${Duration.toHours(invoice.grace)} hours later`,
  )
  yield* Console.log(`  checksum of ${invoice.checksum.length} bytes`)

  yield* Console.log("So is what a module has:")
  const middle = yield* kernel.call("statistics:median", [[1, 2, 10n]], { returns: Schema.Finite })
  yield* Console.log(`  median ${middle}`)

  yield* Console.log("What does not fit is a typed failure:")
  yield* kernel.evaluate("{'rows': [1, 'two']}", Schema.Struct({ rows: Schema.Array(Schema.Int) })).pipe(
    Effect.catchTag("SchemaError", (error) => Console.log(`  ${error.message.replace(/\n\s*/g, " ")}`)),
  )
  yield* kernel.evaluate("{'rows': [{'handle': object()}]}", Schema.Unknown).pipe(
    Effect.catchTag(
      "UnsupportedValue",
      ({ path, valueType }) => Console.log(`  ${path} is of type ${valueType}`),
    ),
  )
  yield* kernel.set("order", { items: [{ price: () => 1 }] }).pipe(
    Effect.catchTag("UnsupportedValue", (error) => Console.log(`  ${error.message}`)),
  )
})

program.pipe(
  Effect.provide(KernelClient.layer().pipe(Layer.provide(KernelGateway.layer()))),
  NodeRuntime.runMain,
)
