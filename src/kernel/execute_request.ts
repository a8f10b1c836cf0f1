/**
 * The requests of executions.
 *
 * @module
 */
import { executeContent } from "../jupyter/message.ts"
import type { Request } from "./connection.ts"
import type { Instance } from "./instance.ts"
import * as InternalRequest from "./internal_request.ts"
import * as OutputRouter from "./output_router.ts"

/** The options of an execution that concern its request. */
export interface Options {
  /** With `false` the code may not ask for input; true by default. */
  readonly allowStdin?: boolean | undefined
  /** Set if the code is not the user's but carries a request of ours. */
  readonly internalRequest?: InternalRequest.InternalRequest | undefined
}

/** Makes the request for an execution; those of ours are no part of the history. */
export const make = (
  { isDirect }: Pick<Instance, "isDirect">,
  code: string,
  { allowStdin = true, internalRequest }: Options,
  attachment?: InternalRequest.Attachment,
): Request & { readonly id: string } => ({
  id: OutputRouter.executionId(),
  ...(internalRequest !== undefined && isDirect
    ? { type: InternalRequest.requestType, content: { allow_stdin: allowStdin } }
    : {
      type: "execute_request",
      content: executeContent(code, {
        silent: false,
        allowStdin,
        storeHistory: internalRequest === undefined,
      }),
    }),
  ...attachment,
})
