/** Makes a Python environment and prints what came of it as JSON, for the tests that need a process for it. */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Logger, Schema } from "effect"
import process from "node:process"
import * as Platform from "../../src/platform.ts"
import { KernelGateway, PythonEnvironment } from "../../src/mod.ts"

const encode = Schema.encodeEffect(
  Schema.fromJsonString(Schema.toCodecJson(KernelGateway.GatewayErrorReason)),
)
const cacheDir = process.argv[2] ?? ""
const base = Platform.variable("TEST_BASE")

PythonEnvironment.make({ cacheDir, packages: process.argv.slice(3), ...(base === undefined ? {} : { base }) })
  .pipe(
    Effect.map((environment) => JSON.stringify(environment)),
    Effect.catchTag("GatewayError", (error) => encode(error.reason)),
    Effect.flatMap(Console.log),
    Effect.provideService(Logger.LogToStderr, true),
    NodeRuntime.runMain,
  )
