/** What a program does without a library: one WebSocket to a stock gateway, JSON, callbacks. */
import { Effect } from "effect"
import { randomUUID } from "node:crypto"
import { WebSocket } from "ws"

/** The parts of a message that are looked at. */
interface Message {
  readonly header: { readonly msg_type: string }
  readonly parent_header: { readonly msg_id?: string }
  readonly content: { readonly execution_state?: string; readonly text?: string }
}

/** A kernel and the connection to it. */
export interface RawKernel {
  readonly id: string
  /** Runs code to its reply and its idle; each output with the time of day when it came. */
  readonly execute: (code: string) => Effect.Effect<ReadonlyArray<readonly [at: number, text: string]>>
  readonly interrupt: Effect.Effect<void>
}

/** Starts a kernel, which is deleted with the scope. */
export const make = Effect.fnUntraced(function* (url: string) {
  const id = yield* Effect.acquireRelease(
    Effect.promise(async () => {
      const response = await fetch(`${url}/api/kernels`, { method: "POST", body: "{}" })
      const { id }: { readonly id: string } = await response.json()
      return id
    }),
    (id) => Effect.promise(() => fetch(`${url}/api/kernels/${id}`, { method: "DELETE" })),
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
  socket.on("message", (data) => {
    const message: Message = JSON.parse(`${data}`)
    listeners.get(message.parent_header.msg_id ?? "")?.(message)
  })
  const kernel: RawKernel = {
    id,
    execute: (code) =>
      Effect.callback((resume) => {
        const msg_id = randomUUID()
        let isIdle = false
        let isReplied = false
        const outputs: Array<readonly [number, string]> = []
        listeners.set(msg_id, ({ content, header }) => {
          if (header.msg_type === "stream") {
            outputs.push([performance.timeOrigin + performance.now(), content.text ?? ""])
          }
          isReplied ||= header.msg_type === "execute_reply"
          isIdle ||= content.execution_state === "idle"
          if (!isIdle || !isReplied) return
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
  return kernel
})
