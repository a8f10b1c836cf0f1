/**
 * Narrows the rules of a gateway on its own machine, for programs on other machines, which are not trusted to do it.
 *
 * @module
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Permissions from "./permissions.ts"
import * as Rules from "./rules.ts"

/** Returns the rules that permissions result in. Rejects with an error if they exceed those of the gateway. */
export const narrow = (wide: Rules.Rules, permissions: unknown, workspace: string): Promise<Rules.Rules> =>
  Permissions.decode(permissions).pipe(
    Effect.flatMap((given) => Rules.narrow(wide, given, workspace)),
    Effect.provide(Layer.merge(NodeFileSystem.layer, NodePath.layer)),
    // The helper process is no program of Effect.
    Effect.runPromise,
  )
