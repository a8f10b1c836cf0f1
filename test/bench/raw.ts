/** A client without a library: one WebSocket to a stock gateway, JSON, callbacks. */
import { Deferred, Effect, Exit, Schedule } from "effect"
import { randomUUID } from "node:crypto"
import process from "node:process"
import { WebSocket } from "ws"

/** The parts of a message that are looked at. */
interface Message {
  readonly header: { readonly msg_type: string }
  readonly parent_header: { readonly msg_id?: string }
  readonly content: {
    readonly execution_state?: string
    readonly text?: string
    readonly data?: Readonly<Record<string, string>>
    readonly evalue?: string
    readonly status?: string
  }
}

/** An output: its text, or that of an image, and when it came, by the clock that `time.monotonic` reads. */
export interface Output {
  readonly at: number
  readonly text: string
}

/** The mark of an image in the list of outputs. */
export const image = "[image]"

/** Milliseconds of the clock that processes of a machine share, and which is never set. */
export const clock = (): number => Number(process.hrtime.bigint()) / 1e6

/** A kernel and the connection to it. */
export interface RawKernel {
  readonly id: string
  /** Runs code to its end. */
  readonly execute: (
    code: string,
    options?: { readonly onOutput?: (output: Output) => void },
  ) => Effect.Effect<ReadonlyArray<Output>>
  /** Succeeds when the server reports that the kernel ended. */
  readonly restarting: Effect.Effect<void>
  readonly interrupt: Effect.Effect<void>
}

/** The steps of a client; those that are absent are left out. */
export interface Way {
  /** Milliseconds between requests for the kernel. */
  readonly retryEvery?: number
  /** Milliseconds to wait after the connection is open. */
  readonly pause?: number
  /** The code that each kernel runs first. */
  readonly init?: string
  /** The reply ends an execution, whether the kernel is idle or not. */
  readonly endsWithReply?: boolean
  /** False if outputs are not returned; true by default. */
  readonly keepsOutputs?: boolean
}

/** Starts a kernel, which is deleted with the scope. */
export const make = Effect.fnUntraced(function* (url: string, way: Way = {}) {
  const create = Effect.tryPromise(async () => {
    const response = await fetch(`${url}/api/kernels`, { method: "POST", body: "{}" })
    const { id }: { readonly id: string } = await response.json()
    return id
  })
  const id = yield* Effect.acquireRelease(
    way.retryEvery === undefined
      ? create
      : Effect.retry(create, { schedule: Schedule.spaced(way.retryEvery), times: 10 }),
    (id) => Effect.promise(() => fetch(`${url}/api/kernels/${id}`, { method: "DELETE" })),
    { interruptible: true },
  )
  const socket = yield* Effect.acquireRelease(
    Effect.promise(() =>
      new Promise<WebSocket>((resolve, reject) => {
        const socket = new WebSocket(`${url.replace("http", "ws")}/api/kernels/${id}/channels`)
        socket.once("open", () => resolve(socket))
        socket.once("error", reject)
      })
    ),
    (socket) => Effect.sync(() => socket.terminate()),
  )
  const listeners = new Map<string, (message: Message) => void>()
  const restarting = Deferred.makeUnsafe<void>()
  socket.on("message", (data) => {
    const message: Message = JSON.parse(`${data}`)
    if (["restarting", "dead"].includes(message.content.execution_state ?? "")) {
      Deferred.doneUnsafe(restarting, Exit.void)
    }
    listeners.get(message.parent_header.msg_id ?? "")?.(message)
  })
  const kernel: RawKernel = {
    id,
    restarting: Deferred.await(restarting),
    execute: (code, { onOutput } = {}) =>
      Effect.callback((resume) => {
        const msg_id = randomUUID()
        let isIdle = way.endsWithReply === true
        let isReplied = false
        let hasFailed = false
        const outputs: Array<Output> = []
        listeners.set(msg_id, (message) => {
          const { content, header } = message
          for (const text of texts(message)) {
            const output = { at: clock(), text }
            if (way.keepsOutputs !== false) outputs.push(output)
            onOutput?.(output)
          }
          hasFailed ||= header.msg_type === "error"
          // The reply tells of an exception once more, or for the first time.
          if (content.status === "error" && !hasFailed) {
            outputs.push({ at: clock(), text: content.evalue ?? "" })
          }
          isReplied ||= header.msg_type === "execute_reply"
          isIdle ||= content.execution_state === "idle"
          if (!isIdle || !isReplied) {
            return
          }
          listeners.delete(msg_id)
          resume(Effect.succeed(outputs))
        })
        socket.send(JSON.stringify({
          channel: "shell",
          header: {
            msg_id,
            msg_type: "execute_request",
            username: "",
            session: "raw",
            date: "",
            version: "5.3",
          },
          parent_header: {},
          metadata: {},
          content: { code, silent: false, store_history: true, user_expressions: {}, allow_stdin: false },
        }))
      }),
    interrupt: Effect.asVoid(
      Effect.promise(() => fetch(`${url}/api/kernels/${id}/interrupt`, { method: "POST" })),
    ),
  }
  if (way.pause !== undefined) yield* Effect.sleep(way.pause)
  if (way.init !== undefined) yield* kernel.execute(way.init)
  return kernel
})

function texts({ content, header }: Message): ReadonlyArray<string> {
  switch (header.msg_type) {
    case "stream":
      return [content.text ?? ""]
    case "display_data":
    case "execute_result": {
      const text = content.data?.["text/plain"]
      return [
        ...text === undefined ? [] : [text],
        ...content.data?.["image/png"] === undefined ? [] : [image],
      ]
    }
    case "error":
      return [content.evalue ?? ""]
    default:
      return []
  }
}
