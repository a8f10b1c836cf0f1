/**
 * Splits what is too large for one message of a serialization, most of which have a limit of 16 MiB.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Chunk, ExecutionFailure, ExecutionResult, KernelOutput } from "../execution.ts"
import { Question } from "./question.ts"

/** A part of the JSON of an element or a failure. */
export class Fragment extends Schema.TaggedClass<Fragment>("effect-jupyter/KernelRpc/Fragment")("Fragment", {
  json: Schema.String,
  isLast: Schema.Boolean,
}) {}

/** Maximum size of a message, and characters of a fragment: each may take 6 bytes. */
export const maxSize = 1024 * 1024

/** Maximum bytes of an answer that is not a stream, below the limit of serializations. */
const maxAnswer = 15_000_000

const Whole = Schema.Union([
  ...Chunk.members,
  ExecutionResult,
  KernelOutput,
  Question,
  ...ExecutionFailure.members,
])
type Whole = typeof Whole.Type
const Json = Schema.fromJsonString(Schema.toCodecJson(Whole))
const encode = Schema.encodeSync(Json)
const decode = Schema.decodeEffect(Json)
const isWhole = Schema.is(Whole)
const isFailure = Schema.is(ExecutionFailure)

/** Tells elements of executions from others. */
export const isOfExecution = Schema.is(Schema.Union([...Chunk.members, ExecutionResult, Question]))

const isOutput = Schema.is(Schema.Union([...Chunk.members, KernelOutput]))

/** Tells elements of late output from others. */
export const isOfLateOutput = Schema.is(KernelOutput)

/** Replaces large elements, and a large failure, by fragments, and bounds the size of batches. */
export const split = <A extends object, E extends ExecutionFailure>(
  stream: Stream.Stream<A, E>,
): Stream.Stream<A | Fragment, E> =>
  stream.pipe(
    Stream.map((element): A | Fragment => element),
    Stream.catch((failure) =>
      sizeOf(failure) > maxSize ? Stream.fromIterable(fragmentsOf(failure)) : Stream.fail(failure)
    ),
    Stream.mapArray((elements) => Arr.of(batchesOf(elements))),
    Stream.flattenIterable,
    // Each batch is a message.
    Stream.rechunk(1),
    Stream.flattenArray,
  )

/** Splits a batch into smaller ones, with fragments in place of large elements. */
function batchesOf<A extends object>(
  elements: ReadonlyArray<A | Fragment>,
): ReadonlyArray<Arr.NonEmptyReadonlyArray<A | Fragment>> {
  const batches: Array<Arr.NonEmptyArray<A | Fragment>> = []
  let total = Infinity
  for (const element of elements) {
    const size = sizeOf(element)
    const parts = size > maxSize && isWhole(element) ? fragmentsOf(element) : [element]
    for (const part of parts) {
      const partSize = parts.length === 1 ? size : sizeOf(part)
      const last = batches.at(-1)
      if (last === undefined || total + partSize > maxSize) {
        batches.push([part])
        total = partSize
      } else {
        last.push(part)
        total += partSize
      }
    }
  }
  return batches
}

function fragmentsOf(element: Whole): ReadonlyArray<Fragment> {
  const json = encode(element)
  const fragments: Array<Fragment> = []
  for (let start = 0; start < json.length;) {
    let end = start + maxSize
    // UTF-8 has no code for one half of a pair.
    if (isHighSurrogate(json.charCodeAt(end - 1))) end--
    fragments.push(new Fragment({ json: json.slice(start, end), isLast: end >= json.length }))
    start = end
  }
  return fragments
}

const isHighSurrogate = (code: number): boolean => code >= 0xd800 && code <= 0xdbff

/** Estimates the characters of the JSON of a value, without those that are escaped. */
function sizeOf(value: unknown): number {
  if (typeof value === "string") return value.length
  if (ArrayBuffer.isView(value)) return value.byteLength * 4 / 3
  if (typeof value !== "object" || value === null) return 8
  return Object.entries(value).reduce((sum, [key, member]) => sum + key.length + sizeOf(member), 8)
}

/** Returns a description of an answer that is too large for one message. */
export function findExcess(answer: unknown): string | undefined {
  if (sizeOf(answer) <= maxSize) return undefined
  const { byteLength } = new TextEncoder().encode(JSON.stringify(answer))
  return byteLength <= maxAnswer
    ? undefined
    : `its answer has ${byteLength} bytes, and one message may have ${maxAnswer}`
}

/** Fails as soon as there is more output than `max` characters, besides the result. */
export const within = <A extends object, E, E2>(
  stream: Stream.Stream<A, E>,
  max: number,
  excess: Effect.Effect<never, E2>,
): Stream.Stream<A, E | E2> =>
  Stream.suspend(() => {
    let total = 0
    return Stream.tap(stream, (element) => {
      if (isOutput(element)) total += sizeOf(element)
      return total > max ? excess : Effect.void
    })
  })

/** Joins fragments to elements; fails with a failure that was split. */
export const join = <A extends object, E, Element extends Whole>(
  stream: Stream.Stream<A | Fragment, E>,
  isElement: (whole: Whole) => whole is Element,
): Stream.Stream<A | Element, E | ExecutionFailure> =>
  Stream.mapAccum(
    stream,
    () => "",
    (json, element): readonly [string, ReadonlyArray<A | Complete>] =>
      !(element instanceof Fragment)
        ? [json, [element]]
        : element.isLast
        ? ["", [new Complete(json + element.json)]]
        : [json + element.json, []],
  ).pipe(
    Stream.mapEffect(
      (element): Effect.Effect<A | Element, ExecutionFailure> =>
        element instanceof Complete
          ? Effect.flatMap(Effect.orDie(decode(element.json)), (whole) =>
            isElement(whole)
              ? Effect.succeed(whole)
              : isFailure(whole)
              ? Effect.fail(whole)
              : Effect.die(`The server sent ${whole._tag} where it is not expected`))
          : Effect.succeed(element),
    ),
  )

/** The JSON of all fragments of an element. */
class Complete {
  readonly json: string
  constructor(json: string) {
    this.json = json
  }
}
