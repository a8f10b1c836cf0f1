/**
 * Code that another owner of a kernel goes on with: its reference, and the positions of its chunks.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import type { ExecuteOptions } from "../client/kernel.ts"
import type { Chunk, ExecutionFailure, ExecutionResult } from "../execution.ts"
import type * as Exchange from "../values/exchange.ts"
import { Begun, Position } from "./group.ts"

/** Runs code, and emits what another process needs to go on with it. */
export const stream = (
  carrier: Exchange.Carrier,
  code: string,
  { chunks, ...options }: ExecuteOptions & { readonly chunks: boolean | undefined },
  isLeft: () => boolean,
): Stream.Stream<Chunk | ExecutionResult | Begun | Position, ExecutionFailure> => {
  const positions = makePositions()
  const begun = Deferred.makeUnsafe<Begun>()
  const elements = carrier.stream(code, {
    ...options,
    continued: {
      isLeft,
      onBegin: (ref) => void Deferred.doneUnsafe(begun, Exit.succeed(new Begun({ ref }))),
      ...(chunks === false ? {} : { onChunk: (_, position) => positions.note(position) }),
    },
  })
  return Stream.merge(Stream.fromEffect(Deferred.await(begun)), positions.before(elements), {
    haltStrategy: "right",
  })
}

/** Collects the positions of chunks, and emits each before its chunk. */
export const makePositions = () => {
  const noted: Array<Position> = []
  return {
    note: (position: number | undefined) =>
      Effect.sync(() => {
        if (position !== undefined) noted.push(new Position({ position }))
      }),
    before: <E>(elements: Stream.Stream<Chunk | ExecutionResult, E>) =>
      elements.pipe(
        Stream.map((element) => isNoChunk(element) ? [element] : [...noted.splice(0, 1), element]),
        Stream.flattenIterable,
      ),
  }
}

/** Tells the elements that do not belong to the output. */
export const isNoChunk = ({ _tag }: Chunk | ExecutionResult | Begun | Position): boolean =>
  _tag === "ExecutionResult" || _tag === "Begun"
