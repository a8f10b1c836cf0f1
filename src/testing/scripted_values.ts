/**
 * The values that scripts give in place of Python, for the requests of typed values.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type { KernelErrorReason } from "../execution.ts"
import { isJsonObject, type JsonObject } from "../jupyter/message.ts"
import { GivenValue } from "../values/given_value.ts"
import type { Raised, Script } from "./script.ts"

export { mime } from "../values/request.ts"

/** The end of code. */
type End = "ok" | Raised | KernelErrorReason

/** A request for values. */
export interface Operation {
  readonly request: JsonObject
  /** The code that scripts match; `undefined` if it goes on with what other code began. */
  readonly code: string | undefined
}

/** An iterator of a script that is pulled, and how the code ends after its elements. */
interface Pulled {
  readonly iterator: Iterator<unknown> | AsyncIterator<unknown>
  readonly end: End
}

/** The values of one kernel. */
export interface ScriptedValues {
  /** Returns the operation of a request. */
  readonly operationOf: (request: unknown) => Operation
  /** Answers a request when its script has been played to the end, and returns how its code ends. */
  readonly answer: (
    operation: Operation,
    script: Script | undefined,
    end: End,
    answer: (content: JsonObject) => void,
  ) => Effect.Effect<End>
}

/** Makes the values of a kernel without iterators. */
export function make(): ScriptedValues {
  const iterators = new Map<unknown, Pulled>()
  const pull = Effect.fnUntraced(function* (
    { key, size }: JsonObject,
    answer: (content: JsonObject) => void,
  ): Effect.fn.Return<End> {
    const pulled = iterators.get(key)
    if (pulled === undefined) return { ename: "KeyError", evalue: "The iterator is gone" }
    const elements: Array<GivenValue> = []
    let isOver = false
    while (elements.length < Number(size) && !isOver) {
      const step = pulled.iterator.next()
      const next = Predicate.isPromiseLike(step) ? yield* Effect.promise(() => step) : step
      if (next.done === true) isOver = true
      else elements.push(new GivenValue(next.value))
    }
    const isDone = isOver && pulled.end === "ok"
    if (elements.length > 0 || isDone) {
      answer({ kind: "batch", done: isDone, given: new GivenValue(elements) })
    }
    return isOver ? pulled.end : "ok"
  })
  return {
    operationOf: (request) => {
      const operation = isJsonObject(request) ? request : {}
      const { callable, expression, name } = operation
      const code = [expression, name, callable].find((code) => typeof code === "string")
      return { request: operation, code }
    },
    answer: Effect.fnUntraced(function* ({ code, request }, script, end, answer) {
      if (request.operation === "close") {
        const pulled = iterators.get(request.key)
        iterators.delete(request.key)
        // As a generator of Python is closed when its consumer ends.
        yield* Effect.promise(() => Promise.resolve(pulled?.iterator.return?.()))
        answer({ kind: "done" })
        return "ok"
      }
      if (request.operation === "pull") {
        if (code === undefined) return yield* pull(request, answer)
        // Elements before a failure are emitted before it.
        if (end !== "ok" && script?.value === undefined) return end
        const value = made(script, {})
        const iterator = iteratorOf(value)
        if (iterator === undefined) {
          const type = value === undefined || value === null ? "NoneType" : typeof value
          return { ename: "TypeError", evalue: `'${type}' object is not iterable` }
        }
        iterators.set(request.key, { iterator, end })
        return yield* pull(request, answer)
      }
      if (end !== "ok") return end
      const value = made(script, request)
      answer(
        request.operation === "set" || request.discard === true
          ? { kind: "done" }
          : { kind: "value", given: new GivenValue(value) },
      )
      return "ok"
    }),
  }
}

/** Returns the value of a script; a function makes it of the arguments. */
function made(script: Script | undefined, { args, kwargs, operation, value }: JsonObject): unknown {
  const given = script?.value
  if (typeof given !== "function") return given
  const positional = operation === "set" ? [value] : Array.isArray(args) ? args : []
  const isNamed = isJsonObject(kwargs) && Object.keys(kwargs).length > 0
  return given(...positional, ...(isNamed ? [kwargs] : []))
}

/** Returns what gives the elements of a value, if it has any. */
function iteratorOf(value: unknown): Iterator<unknown> | AsyncIterator<unknown> | undefined {
  if (typeof value === "string" || Predicate.isIterable(value)) return value[Symbol.iterator]()
  return isAsyncIterable(value) ? value[Symbol.asyncIterator]() : undefined
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return Predicate.hasProperty(value, Symbol.asyncIterator)
}
