/**
 * Output that arrives after its execution has ended, of threads, timers and tasks. Every consumer receives it, with a
 * bounded buffer.
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

/** A message with output, and the execution that it belongs to. */
export interface Unsolicited {
  readonly message: Message
  /** The length of its frame. */
  readonly bytes: number
  readonly executionId: string | undefined
  readonly executionCount: number | undefined
}

/** Publishes late output to its consumers. */
export interface LateOutput {
  /** Emits the output that is published from now on, until the scope closes. */
  readonly stream: Stream.Stream<KernelOutput, never, Platform>
  readonly publish: (output: Unsolicited) => void
}

/** Maximum number of buffered outputs of a consumer. */
const maxWaiting = 1024

/** Maximum bytes of buffered outputs of a consumer. */
const maxWaitingBytes = 8 * 1024 * 1024

/** A buffered output. */
interface Entry extends Omit<Unsolicited, "message"> {
  readonly output: Output
  readonly missed: number
}

/** A consumer and its buffer. */
interface Reader {
  readonly queue: Queue.Queue<Entry, Cause.Done>
  bytes: number
  missed: number
}

/** Makes a {@link LateOutput}; its streams end when the scope closes. */
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
          if (readers.size === 0) return missed("Late output had no consumer", unsolicited)
          const { bytes, executionCount, executionId } = unsolicited
          for (const reader of readers) {
            if (Queue.sizeUnsafe(reader.queue) >= maxWaiting || reader.bytes >= maxWaitingBytes) {
              reader.missed++
              missed("Late output was dropped: its consumer is too slow", unsolicited)
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
