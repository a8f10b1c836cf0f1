/** Debian's Chromium, without a window, over the DevTools protocol. */
import { Effect, FileSystem, Queue, Schedule, Schema, Stream } from "effect"
import { HttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
import { ChildProcess } from "effect/process"
import { accessSync, constants } from "node:fs"
import { delimiter, join } from "node:path"
import { WebSocket } from "ws"
import * as Platform from "../../src/platform.ts"

/** The path of Chromium; undefined if it is not installed. */
export const chromium = ["chromium", "chromium-browser", "google-chrome"].flatMap((name) =>
  (Platform.variable("PATH") ?? "").split(delimiter).map((folder) => join(folder, name))
).find((path) => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
})

class NotSo
  extends Schema.TaggedError<NotSo>()("NotSo", { expression: Schema.String, value: Schema.Unknown }) {}

const Target = Schema.Struct({ webSocketDebuggerUrl: Schema.String })
const Reply = Schema.fromJsonString(Schema.Struct({
  id: Schema.optional(Schema.Int),
  result: Schema.optional(Schema.Struct({
    result: Schema.optional(Schema.Struct({ value: Schema.optional(Schema.Unknown) })),
    exceptionDetails: Schema.optional(Schema.Unknown),
  })),
}))

/** Opens a page in a browser of its own, which ends with the scope. */
export const open = Effect.fnUntraced(function* (url: string) {
  const fs = yield* FileSystem.FileSystem
  const profile = yield* fs.makeTempDirectoryScoped({ prefix: "effect-jupyter-chromium-" })
  const handle = yield* ChildProcess.make(chromium ?? "chromium", [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    `--user-data-dir=${profile}`,
    "about:blank",
  ], { extendEnv: true, env: { HOME: profile }, stdin: "ignore", forceKillAfter: "5 seconds" })
  const [line = ""] = yield* handle.stderr.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.filter((line) => line.startsWith("DevTools listening on ")),
    Stream.take(1),
    Stream.runCollect,
  )
  const port = /:(\d+)\//.exec(line)?.[1] ?? ""
  const { webSocketDebuggerUrl } = yield* HttpClientRequest.put(
    `http://127.0.0.1:${port}/json/new?${encodeURIComponent(url)}`,
  ).pipe(HttpClient.execute, Effect.flatMap(HttpClientResponse.schemaBodyJson(Target)))
  const replies = yield* Queue.unbounded<string>()
  const socket = yield* Effect.acquireRelease(
    Effect.callback<WebSocket>((resume) => {
      const socket = new WebSocket(webSocketDebuggerUrl)
      socket.on("open", () => resume(Effect.succeed(socket)))
      socket.on("error", (error) => resume(Effect.die(error)))
      socket.on("message", (data) => Queue.offerUnsafe(replies, String(data)))
    }),
    (socket) => Effect.sync(() => socket.terminate()),
  )

  let id = 0
  /** Evaluates an expression in the page. */
  const evaluate = Effect.fnUntraced(function* (expression: string) {
    const own = ++id
    socket.send(JSON.stringify({
      id: own,
      method: "Runtime.evaluate",
      params: { expression, awaitPromise: true, returnByValue: true },
    }))
    while (true) {
      const reply = yield* Schema.decodeEffect(Reply)(yield* Queue.take(replies))
      if (reply.id !== own) continue
      const { exceptionDetails, result } = reply.result ?? {}
      if (exceptionDetails !== undefined) return yield* new NotSo({ expression, value: exceptionDetails })
      return result?.value
    }
  })
  return {
    evaluate,
    /** Waits until an expression is true in the page, and fails with the text of the page if it does not become so. */
    until: (expression: string) =>
      Effect.gen(function* () {
        if ((yield* evaluate(expression)) === true) return
        return yield* new NotSo({ expression, value: yield* evaluate("document.body.innerText") })
      }).pipe(
        Effect.retry({
          schedule: Schedule.spaced("50 millis").pipe(Schedule.upTo({ duration: "20 seconds" })),
        }),
      ),
  }
})
