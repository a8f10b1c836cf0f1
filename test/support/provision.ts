/** Makes a Python environment and prints what came of it as JSON, for the tests that need a process for it. */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema } from "effect"
import process from "node:process"
import { KernelGateway, PythonEnvironment } from "../../src/mod.ts"

const encode = Schema.encodeEffect(
  Schema.fromJsonString(Schema.toCodecJson(KernelGateway.GatewayErrorReason)),
)
const cacheDir = process.argv[2] ?? ""

PythonEnvironment.make({ cacheDir, packages: process.argv.slice(3) }).pipe(
  Effect.map((environment) => JSON.stringify(environment)),
  Effect.catchTag("GatewayError", (error) => encode(error.reason)),
  Effect.flatMap(Console.log),
  NodeRuntime.runMain,
)
