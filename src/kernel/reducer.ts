/**
 * The protocol of an execution as a pure fold over messages: each message changes the progress of the execution and may
 * have an output. `transcript.ts` collects the outputs.
 *
 * @module
 */
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import type { Payload } from "../execution.ts"
import { excerpt, plain } from "../jupyter/control_codes.ts"
import { decode, type JsonObject, maxIdLength, type Message } from "../jupyter/message.ts"
import type { Output } from "../output/output.ts"
import * as InternalRequest from "./internal_request.ts"
import * as TruncatedText from "../output/truncated_text.ts"

/** An exception as the kernel describes it, without color codes. */
export interface Raised {
  readonly ename: string
  readonly evalue: string
  readonly traceback: ReadonlyArray<string>
}

/** The progress of an execution. */
export interface Progress {
  /** True if the kernel has begun to run the code, which an interrupt then reaches. */
  readonly started: boolean
  /** The status of `execute_reply`. */
  readonly reply: "ok" | "error" | "aborted" | undefined
  /** True if the kernel has sent all output and waits for the next request. */
  readonly idle: boolean
  /** The exception that ended the code, when it is known. */
  readonly raised: Raised | undefined
  /** The exception that the reply names. */
  readonly named: Raised | undefined
  /** Exceptions that the kernel showed, which may include the one that ended the code. */
  readonly shown: ReadonlyArray<Raised>
  readonly executionCount: number | undefined
  /** The ids of the output widgets that capture output, the current one last. */
  readonly capturingWidgets: ReadonlyArray<string>
  /** The requests of the reply to the frontend, except texts for a pager. */
  readonly payloads: ReadonlyArray<Payload>
  /** Texts of the reply for a pager, which follow all other output. */
  readonly pages: ReadonlyArray<Output>
  /** The number of messages that were not valid or are not known. */
  readonly ignored: number
}

/** Maximum number of nested widgets: the time to search them is linear in their number. */
const maxCapturingWidgets = 100

/** Maximum number of representations of a display. */
const maxRepresentations = 1000

/** Maximum bytes of an exception's text, and of its traceback. */
const maxExceptionLength = 10_000_000

/** The name of an exception for which the kernel gives none. */
const nameless = "Error"

/** Maximum number of exceptions that are kept until it is known which of them ended the code. */
const maxShown = 8

/** Maximum number and length of the frames of {@link lastFrames}. */
const maxFrames = 20
const maxFrameLength = 2000

/** Maximum number of payloads of a reply; IPython sends few. */
const maxPayloads = 100

/** The progress of an execution before its first message. */
export const initial: Progress = {
  started: false,
  reply: undefined,
  idle: false,
  raised: undefined,
  named: undefined,
  shown: [],
  executionCount: undefined,
  capturingWidgets: [],
  payloads: [],
  pages: [],
  ignored: 0,
}

/**
 * Tells whether an execution is over: its reply and its idle have both arrived. They are sent on different channels, and
 * the reply can arrive before the output.
 */
export function isOver(progress: Progress): boolean {
  return progress.reply !== undefined && progress.idle
}

/** Returns the progress after a message whose parent is the execution's request, and the output of the message. */
export function step(progress: Progress, message: Message): readonly [Progress, Output?] {
  const { content, header, parentHeader } = message
  const outputWidget = progress.capturingWidgets.at(-1)
  const inWidget = outputWidget === undefined ? {} : { outputWidget }
  switch (header.msg_type) {
    case "status": {
      const status = decode.status(content)
      if (Exit.isFailure(status)) return ignored(progress)
      return status.value.execution_state === "idle" ? settle({ ...progress, idle: true }) : [progress]
    }
    case "execute_input":
      return [{ ...progress, started: true }]
    case "stream": {
      const stream = decode.stream(content)
      if (Exit.isFailure(stream)) return ignored(progress)
      const { name, text } = stream.value
      return [progress, { _tag: "Text", name, text, ...inWidget }]
    }
    case "display_data":
    case "execute_result":
    case "update_display_data": {
      const display = decode.display(content)
      if (Exit.isFailure(display) || Object.keys(display.value.data).length > maxRepresentations) {
        return ignored(progress)
      }
      const { data, execution_count: count, metadata, transient } = display.value
      return [progress, {
        _tag: "Display",
        update: header.msg_type === "update_display_data",
        data,
        metadata: metadata ?? {},
        displayId: displayIdOf(transient),
        executionCount: wholeNumber(count),
        ...inWidget,
      }]
    }
    case "clear_output": {
      const clear = decode.clearOutput(content)
      return Exit.isFailure(clear)
        ? ignored(progress)
        : [progress, { _tag: "Clear", wait: clear.value.wait ?? false, ...inWidget }]
    }
    case "error": {
      const error = decode.error(content)
      if (Exit.isFailure(error)) return ignored(progress)
      const shown = exceptionOf(error.value)
      return outputWidget === undefined
        ? settle({ ...progress, shown: [...progress.shown, shown] })
        : [progress, { ...textOf([shown]), ...inWidget }]
    }
    case "execute_reply":
    case InternalRequest.replyType: {
      // A request has one reply: further ones do not change how the code ended.
      if (progress.reply === "ok" || progress.reply === "error") return ignored(progress)
      const reply = decode.executeReply(content)
      // There is no other reply, and an execution without one would never end.
      if (Exit.isFailure(reply)) return [{ ...progress, reply: "aborted", ignored: progress.ignored + 1 }]
      const { execution_count: count, payload, status } = reply.value
      const executionCount = wholeNumber(count)
      const withReply = payload === undefined ? progress : withPayloads(progress, payload)
      return settle({
        ...withReply,
        reply: status === "ok" || status === "error" ? status : "aborted",
        executionCount,
        named: status === "error" ? exceptionOf(reply.value) : undefined,
      })
    }
    case "comm_msg": {
      const capture = decode.capture(content)
      if (Exit.isFailure(capture) || capture.value.comm_id.length > maxIdLength) return ignored(progress)
      const { comm_id: id, data: { state: { msg_id: execution } } } = capture.value
      const others = progress.capturingWidgets.filter((other) => other !== id)
      const capturingWidgets = execution === parentHeader["msg_id"]
        ? [...others, id].slice(-maxCapturingWidgets)
        : others
      return [{ ...progress, capturingWidgets }]
    }
    default:
      return ignored(progress)
  }
}

/** Returns the progress of an execution that has ended although its reply or its idle did not arrive. */
export function end(progress: Progress): readonly [Progress, Output?] {
  return settle({ ...progress, reply: progress.reply ?? "error", idle: true })
}

/** Returns the progress of an execution that ends early: its exceptions become output, as no reply names the last. */
export function putOutShown(progress: Progress): readonly [Progress, Output?] {
  // A server interrupts the code before it ends a kernel, which is not an exception of the code.
  const shown = progress.shown.filter(({ ename }) => ename !== "KeyboardInterrupt")
  return putOut({ ...progress, shown: [] }, shown)
}

/** Returns the last frames of the exception that ended the code: where it was when it was interrupted. */
export function lastFrames({ raised }: Progress): ReadonlyArray<string> {
  const frames = raised?.traceback.slice(-maxFrames) ?? []
  return frames.map((frame) => frame.length > maxFrameLength ? `${frame.slice(0, maxFrameLength)}…` : frame)
}

/**
 * Distinguishes the exception that ended the code from those that were only shown, which are output. The reply and the
 * exceptions arrive on different channels, so that their order has no meaning.
 */
function settle(progress: Progress): readonly [Progress, Output?] {
  const { named, raised, reply, shown } = progress
  if (reply === undefined) {
    const late = Math.max(0, shown.length - maxShown)
    return putOut({ ...progress, shown: shown.slice(late) }, shown.slice(0, late))
  }
  if (reply !== "error") return putOut({ ...progress, shown: [] }, shown)
  const candidates = shown.filter((each) => mayBe(each, named))
  const others = shown.filter((each) => !candidates.includes(each))
  const last = named?.traceback ?? []
  if (last.length > 0 && others.some(({ traceback }) => isSame(traceback, last))) {
    // IPython repeats the traceback of the last exception that it showed, even if the reply names another.
    return settle({ ...progress, named: named && { ...named, traceback: [] } })
  }
  if (!isOver(progress)) {
    const early = candidates.splice(0, Math.max(0, candidates.length - maxShown))
    return putOut({ ...progress, shown: candidates }, [...others, ...early])
  }
  if (raised !== undefined && raised !== named) return putOut({ ...progress, shown: [] }, shown)
  const ended = candidates.findLast((each) => isSame(each.traceback, named?.traceback)) ?? candidates.at(-1)
  return putOut({ ...progress, raised: ended ?? named, shown: [] }, shown.filter((each) => each !== ended))
}

/** Tells whether an exception may be the one that the reply names, if it names one. */
function mayBe({ ename, evalue }: Raised, named: Raised | undefined): boolean {
  return named === undefined || isNameless(named) || (named.ename === ename && named.evalue === evalue)
}

/** Tells whether the reply names no exception; IPython names that of `None` if a value could not be shown. */
function isNameless({ ename, evalue }: Raised): boolean {
  return (ename === nameless && evalue === "") || (ename === "NoneType" && evalue === "None")
}

function isSame(a: ReadonlyArray<string>, b: ReadonlyArray<string> | undefined): boolean {
  return b !== undefined && a.length === b.length && a.every((line, index) => line === b[index])
}

function putOut(progress: Progress, shown: ReadonlyArray<Raised>): readonly [Progress, Output?] {
  return shown.length === 0 ? [progress] : [progress, textOf(shown)]
}

/** Returns exceptions as a notebook shows them. */
function textOf(shown: ReadonlyArray<Raised>): Output {
  const lines = shown.flatMap(({ ename, evalue, traceback }) =>
    traceback.length === 0 ? [`${ename}: ${evalue}`] : traceback
  )
  return { _tag: "Text", name: "stderr", text: `${lines.join("\n")}\n` }
}

/** Returns the progress with the requests of the reply to the frontend. */
function withPayloads(progress: Progress, payload: unknown): Progress {
  if (!Array.isArray(payload)) return { ...progress, ignored: progress.ignored + 1 }
  const pages: Array<Output> = []
  const payloads: Array<Payload> = []
  for (const item of payload.slice(0, maxPayloads)) {
    const decoded = decode.payload(item)
    if (Exit.isFailure(decoded)) continue
    const data = decoded.value.source === "page" ? decode.display({ data: decoded.value.data }) : undefined
    if (data === undefined) payloads.push(decoded.value)
    else if (Exit.isSuccess(data)) pages.push(page(data.value.data))
  }
  const ignored = progress.ignored + payload.length - pages.length - payloads.length
  return { ...progress, pages, payloads, ignored }
}

/** Returns the display of a text that a pager shows. */
function page(data: JsonObject): Output {
  return {
    _tag: "Display",
    update: false,
    data,
    metadata: {},
    displayId: undefined,
    executionCount: undefined,
  }
}

/** Returns the id of a display, which may be a number in Python. */
function displayIdOf(transient: unknown): string | undefined {
  const id = Predicate.hasProperty(transient, "display_id") ? transient.display_id : undefined
  if (typeof id === "number") return `${id}`
  return typeof id === "string" && id !== "" && id.length <= maxIdLength ? id : undefined
}

function ignored(progress: Progress): readonly [Progress] {
  return [{ ...progress, ignored: progress.ignored + 1 }]
}

/** Returns an execution count; `undefined` for another value, which must not invalidate the message. */
function wholeNumber(count: number | null | undefined): number | undefined {
  return typeof count === "number" && Number.isSafeInteger(count) ? count : undefined
}

function exceptionOf(content: {
  readonly ename?: string | undefined
  readonly evalue?: string | undefined
  readonly traceback?: ReadonlyArray<string> | undefined
}): Raised {
  const { ename = nameless, evalue = "", traceback = [] } = content
  const length = traceback.reduce((sum, frame) => sum + frame.length, 0)
  return {
    // Some kernels send an empty name.
    ename: excerpt(ename, maxIdLength) || nameless,
    evalue: plain(shortened(evalue)),
    // The number of frames has no limit either.
    traceback: length + traceback.length > maxExceptionLength
      ? [plain(shortened(traceback.join("\n")))]
      : traceback.map(plain),
  }
}

function shortened(text: string): string {
  return TruncatedText.toText(TruncatedText.append(TruncatedText.empty(maxExceptionLength), text))
}
