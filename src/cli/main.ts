#!/usr/bin/env node
/**
 * The program `effect-jupyter`.
 *
 * @module
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeTerminal from "@effect/platform-node/NodeTerminal"
import * as Cause from "effect/Cause"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import { createRequire } from "node:module"
import * as Platform from "../platform.ts"
import { serve } from "./serve.ts"

const decodePackage = Schema.decodeUnknownSync(Schema.Struct({ version: Schema.String }))
const { version } = decodePackage(createRequire(import.meta.url)("../../package.json"))

Command.make("effect-jupyter").pipe(
  Command.withDescription("Jupyter kernels for Effect"),
  Command.withSubcommands([serve]),
  Command.run({ version }),
  Effect.provide(
    // Standard output has the line for programs alone.
    Layer.mergeAll(
      Platform.layer,
      NodeTerminal.layer,
      Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)]),
    ),
  ),
  NodeRuntime.runMain({
    // The command prints its errors.
    disableErrorReporting: true,
    // A signal is the usual end of a server.
    teardown: (exit, onExit) =>
      Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
        ? onExit(0)
        : Runtime.defaultTeardown(exit, onExit),
  }),
)
