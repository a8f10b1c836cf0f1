/**
 * Output that comes when the execution it is of does not run any more: of threads, timers and tasks. It goes to all
 * who read it, and waits for those that are slow within bounds.
 *
 * @module
 */
import * as Arr from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as LogLevel from "effect/LogLevel"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { KernelOutput } from "../execution.ts"
import type { Message } from "../jupyter/message.ts"
import type { Platform } from "../platform.ts"
import * as Collector from "../output/collector.ts"
import type { ImageOptions } from "../output/images.ts"
import * as Handlers from "./handlers.ts"
import * as Metrics from "./metrics.ts"
import type { Output } from "../output/output.ts"
import * as Reducer from "./reducer.ts"

/** Output and the execution that it is of. */
export interface Unsolicited {
  readonly message: Message
  /** The length of its frame. */
  readonly bytes: number
  readonly executionId: string | undefined
  readonly executionCount: number | undefined
}

/** Who reads late output, and what there is to read. */
export interface LateOutput {
  /** What comes from now on, until the scope closes. */
  readonly stream: Stream.Stream<KernelOutput, never, Platform>
  readonly publish: (output: Unsolicited) => void
}

/** Outputs that wait for a reader. */
const maxWaiting = 1024

/** Bytes that wait for a reader. */
const maxWaitingBytes = 8 * 1024 * 1024

/** An output that waits for a reader. */
interface Entry extends Omit<Unsolicited, "message"> {
  readonly output: Output
  readonly missed: number
}

/** A reader. */
interface Reader {
  readonly queue: Queue.Queue<Entry, Cause.Done>
  bytes: number
  missed: number
}

/** Makes what late output goes through; it ends with the scope. */
export const make: (options: ImageOptions) => Effect.Effect<LateOutput, never, Scope.Scope> = Effect
  .fnUntraced(
    function* (options) {
      const services = yield* Effect.context<never>()
      const runFork = Effect.runForkWith(services)
      const isDebugEnabled = yield* LogLevel.isEnabled("Debug")
      const readers = new Set<Reader>()
      let isClosed = false
      const end = ({ queue }: Reader): void => void Queue.endUnsafe(queue)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          isClosed = true
          readers.forEach(end)
        })
      )
      const missed = (detail: string, { executionId }: Unsolicited): void => {
        Metrics.ignored.updateUnsafe(1, services)
        Metrics.unreadOutputs.updateUnsafe(1, services)
        if (!isDebugEnabled) return
        runFork(Effect.annotateLogs(Effect.logDebug(detail), { execution: executionId }))
      }
      const open = Effect.acquireRelease(
        Effect.map(Queue.unbounded<Entry, Cause.Done>(), (queue) => {
          const reader: Reader = { queue, bytes: 0, missed: 0 }
          if (isClosed) end(reader)
          else readers.add(reader)
          return reader
        }),
        (reader) => Effect.sync(() => readers.delete(reader)),
      )
      return {
        publish: (unsolicited) => {
          const [progress, written] = Reducer.step(Reducer.initial, unsolicited.message)
          const output = written ?? Reducer.putOutShown(progress)[1]
          if (output === undefined) return Metrics.ignored.updateUnsafe(1, services)
          if (readers.size === 0) return missed("Output that nobody reads", unsolicited)
          const { bytes, executionCount, executionId } = unsolicited
          for (const reader of readers) {
            if (Queue.sizeUnsafe(reader.queue) >= maxWaiting || reader.bytes >= maxWaitingBytes) {
              reader.missed++
              missed("Output that its reader is too slow for", unsolicited)
              continue
            }
            reader.bytes += bytes
            Queue.offerUnsafe(reader.queue, {
              output,
              bytes,
              executionId,
              executionCount,
              missed: reader.missed,
            })
            reader.missed = 0
          }
        },
        stream: open.pipe(
          Effect.map((reader) => {
            const toChunks = Collector.makeToChunks(options, Handlers.make())
            return Stream.fromPull(Effect.succeed(
              Effect.flatMap(Queue.takeAll(reader.queue), (entries) => {
                reader.bytes = 0
                return Effect.map(
                  Effect.forEach(
                    entries,
                    ({ executionCount, executionId, missed, output }) =>
                      Effect.map(
                        toChunks([output]),
                        Arr.map((chunk) => new KernelOutput({ chunk, executionId, executionCount, missed })),
                      ),
                  ),
                  Arr.flatten,
                )
              }),
            ))
          }),
          Stream.unwrap,
        ),
      }
    },
  )
