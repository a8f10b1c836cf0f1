/**
 * The protocol of an execution as a fold over messages, which knows nothing of sockets or files: what a message says
 * about the execution's progress, and what it puts out. `transcript.ts` gathers that.
 *
 * @module
 */
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import type { Payload } from "../execution.ts"
import { excerpt, plain } from "../jupyter/control_codes.ts"
import { decode, type JsonObject, maxIdLength, type Message } from "../jupyter/message.ts"
import type { Output } from "../output/output.ts"
import * as TruncatedText from "../output/truncated_text.ts"

/** What the kernel said of an exception, without colour codes. */
export interface Raised {
  readonly ename: string
  readonly evalue: string
  readonly traceback: ReadonlyArray<string>
}

/** How far an execution has come. */
export interface Progress {
  /** The kernel has begun with the code: an interrupt will reach it. */
  readonly started: boolean
  /** What `execute_reply` said. */
  readonly reply: "ok" | "error" | "aborted" | undefined
  /** The kernel has put out everything and waits for the next request. */
  readonly idle: boolean
  /** The exception that ended the code, once that is known. */
  readonly raised: Raised | undefined
  /** What the reply said of it. */
  readonly named: Raised | undefined
  /** Exceptions that the kernel showed, the one that ended the code perhaps among them. */
  readonly shown: ReadonlyArray<Raised>
  readonly executionCount: number | undefined
  /** The widgets that take over what the code puts out, the one that has it last. */
  readonly captures: ReadonlyArray<string>
  /** What the reply asks a frontend for, besides to show a text. */
  readonly payloads: ReadonlyArray<Payload>
  /** What it asks to show in a pager, which comes behind all other output. */
  readonly pages: ReadonlyArray<Output>
  /** How many messages nobody understood. */
  readonly ignored: number
}

/** How many widgets can be within one another: more take ever longer to look through. */
const mostCaptures = 100

/** How many representations a display may have. */
const mostRepresentations = 1000

/** Bytes that are kept of an exception's text, and of its traceback. */
const longestException = 10_000_000

/** The name of an exception that has none. */
const nameless = "Error"

/** How many exceptions wait until it is known which of them ended the code. */
const mostShown = 8

/** How much is told of where code was interrupted. */
const mostFrames = 20
const frameLength = 2000

/** How many payloads a reply can have: IPython has few, and one of most kinds. */
const mostPayloads = 100

/** The progress of an execution that was just asked for. */
export const initial: Progress = {
  started: false,
  reply: undefined,
  idle: false,
  raised: undefined,
  named: undefined,
  shown: [],
  executionCount: undefined,
  captures: [],
  payloads: [],
  pages: [],
  ignored: 0,
}

/**
 * An execution is over when its reply AND its idle have arrived: they travel on different channels, and the
 * reply can overtake the output.
 */
export function isOver(progress: Progress): boolean {
  return progress.reply !== undefined && progress.idle
}

/** The progress after a message whose parent is the execution's request, and what the message puts out. */
export function step(progress: Progress, message: Message): readonly [Progress, Output?] {
  const { content, header, parentHeader } = message
  const area = progress.captures.at(-1)
  const inArea = area === undefined ? {} : { outputWidget: area }
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
      return [progress, { _tag: "Text", name, text, ...inArea }]
    }
    case "display_data":
    case "execute_result":
    case "update_display_data": {
      const display = decode.display(content)
      if (Exit.isFailure(display) || Object.keys(display.value.data).length > mostRepresentations) {
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
        ...inArea,
      }]
    }
    case "clear_output": {
      const clear = decode.clearOutput(content)
      return Exit.isFailure(clear)
        ? ignored(progress)
        : [progress, { _tag: "Clear", wait: clear.value.wait ?? false, ...inArea }]
    }
    case "error": {
      const error = decode.error(content)
      if (Exit.isFailure(error)) return ignored(progress)
      const shown = raised(error.value)
      return area === undefined
        ? settle({ ...progress, shown: [...progress.shown, shown] })
        : [progress, { ...written([shown]), ...inArea }]
    }
    case "execute_reply": {
      // A request has one reply: what else calls itself one does not change how the code ended.
      if (progress.reply === "ok" || progress.reply === "error") return ignored(progress)
      const reply = decode.executeReply(content)
      // Whatever it says, there will be no other: an execution without a reply would never end.
      if (Exit.isFailure(reply)) return [{ ...progress, reply: "aborted", ignored: progress.ignored + 1 }]
      const { execution_count: count, payload, status } = reply.value
      const executionCount = wholeNumber(count)
      const asked = payload === undefined ? progress : withPayloads(progress, payload)
      return settle({
        ...asked,
        reply: status === "ok" || status === "error" ? status : "aborted",
        executionCount,
        named: status === "error" ? raised(reply.value) : undefined,
      })
    }
    case "comm_msg": {
      const capture = decode.capture(content)
      if (Exit.isFailure(capture) || capture.value.comm_id.length > maxIdLength) return ignored(progress)
      const { comm_id: id, data: { state: { msg_id: execution } } } = capture.value
      const others = progress.captures.filter((other) => other !== id)
      const captures = execution === parentHeader["msg_id"] ? [...others, id].slice(-mostCaptures) : others
      return [{ ...progress, captures }]
    }
    default:
      return ignored(progress)
  }
}

/** The progress of an execution whose end is certain although not all of reply and idle arrived. */
export function end(progress: Progress): readonly [Progress, Output?] {
  return settle({ ...progress, reply: progress.reply ?? "error", idle: true })
}

/** The progress of an execution that ends early: its exceptions become output, as no reply will name the last. */
export function putOutShown(progress: Progress): readonly [Progress, Output?] {
  // A server interrupts what runs before it ends a kernel: that says nothing about the code.
  const shown = progress.shown.filter(({ ename }) => ename !== "KeyboardInterrupt")
  return putOut({ ...progress, shown: [] }, shown)
}

/** Where the code was when it was interrupted: the last frames of the exception that ended it, if any. */
export function lastFrames({ raised }: Progress): ReadonlyArray<string> {
  const frames = raised?.traceback.slice(-mostFrames) ?? []
  return frames.map((frame) => frame.length > frameLength ? `${frame.slice(0, frameLength)}…` : frame)
}

/**
 * Tells the exception that ended the code from those that were only shown, which are output. Reply and exceptions
 * travel apart: the order in which they arrive says nothing.
 */
function settle(progress: Progress): readonly [Progress, Output?] {
  const { named, raised, reply, shown } = progress
  if (reply === undefined) {
    const late = Math.max(0, shown.length - mostShown)
    return putOut({ ...progress, shown: shown.slice(late) }, shown.slice(0, late))
  }
  if (reply !== "error") return putOut({ ...progress, shown: [] }, shown)
  const candidates = shown.filter((each) => mayBe(each, named))
  const others = shown.filter((each) => !candidates.includes(each))
  const last = named?.traceback ?? []
  if (last.length > 0 && others.some(({ traceback }) => isSame(traceback, last))) {
    // IPython gives the traceback of the last exception that it showed, whatever the reply names.
    return settle({ ...progress, named: named && { ...named, traceback: [] } })
  }
  if (!isOver(progress)) {
    const early = candidates.splice(0, Math.max(0, candidates.length - mostShown))
    return putOut({ ...progress, shown: candidates }, [...others, ...early])
  }
  if (raised !== undefined && raised !== named) return putOut({ ...progress, shown: [] }, shown)
  const ended = candidates.findLast((each) => isSame(each.traceback, named?.traceback)) ?? candidates.at(-1)
  return putOut({ ...progress, raised: ended ?? named, shown: [] }, shown.filter((each) => each !== ended))
}

/** Whether the exception is the one that the reply names, if it names one. */
function mayBe({ ename, evalue }: Raised, named: Raised | undefined): boolean {
  return named === undefined || isNameless(named) || (named.ename === ename && named.evalue === evalue)
}

/** Whether the reply tells no exception; IPython tells that of `None` if showing a value failed. */
function isNameless({ ename, evalue }: Raised): boolean {
  return (ename === nameless && evalue === "") || (ename === "NoneType" && evalue === "None")
}

function isSame(a: ReadonlyArray<string>, b: ReadonlyArray<string> | undefined): boolean {
  return b !== undefined && a.length === b.length && a.every((line, index) => line === b[index])
}

function putOut(progress: Progress, shown: ReadonlyArray<Raised>): readonly [Progress, Output?] {
  return shown.length === 0 ? [progress] : [progress, written(shown)]
}

/** What a notebook shows of exceptions. */
function written(shown: ReadonlyArray<Raised>): Output {
  const lines = shown.flatMap(({ ename, evalue, traceback }) =>
    traceback.length === 0 ? [`${ename}: ${evalue}`] : traceback
  )
  return { _tag: "Text", name: "stderr", text: `${lines.join("\n")}\n` }
}

/** The progress with what the reply asks a frontend for. */
function withPayloads(progress: Progress, payload: unknown): Progress {
  if (!Array.isArray(payload)) return { ...progress, ignored: progress.ignored + 1 }
  const pages: Array<Output> = []
  const payloads: Array<Payload> = []
  for (const item of payload.slice(0, mostPayloads)) {
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

/** The id of a display, which users may choose to be a number. */
function displayIdOf(transient: unknown): string | undefined {
  const id = Predicate.hasProperty(transient, "display_id") ? transient.display_id : undefined
  if (typeof id === "number") return `${id}`
  return typeof id === "string" && id !== "" && id.length <= maxIdLength ? id : undefined
}

function ignored(progress: Progress): readonly [Progress] {
  return [{ ...progress, ignored: progress.ignored + 1 }]
}

/** An execution count; what is no whole number is no reason to lose the message. */
function wholeNumber(count: number | null | undefined): number | undefined {
  return typeof count === "number" && Number.isSafeInteger(count) ? count : undefined
}

function raised(content: {
  readonly ename?: string | undefined
  readonly evalue?: string | undefined
  readonly traceback?: ReadonlyArray<string> | undefined
}): Raised {
  const { ename = nameless, evalue = "", traceback = [] } = content
  const length = traceback.reduce((sum, frame) => sum + frame.length, 0)
  return {
    // Some kernels give it no name.
    ename: excerpt(ename, maxIdLength) || nameless,
    evalue: plain(shortened(evalue)),
    // Frames can also be very many.
    traceback: length + traceback.length > longestException
      ? [plain(shortened(traceback.join("\n")))]
      : traceback.map(plain),
  }
}

function shortened(text: string): string {
  return TruncatedText.toText(TruncatedText.append(TruncatedText.empty(longestException), text))
}
