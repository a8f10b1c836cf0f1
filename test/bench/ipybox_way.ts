/**
 * The steps of ipybox as a Node program: the cost of its waits, without the difference between the languages.
 * Known from ipybox 0.9.2, `ipybox/kernel_mgr/server.py` and `client.py`; `ipybox_client.py` runs the original.
 */
import { Effect, Fiber } from "effect"
import * as Raw from "./raw.ts"
import * as Stock from "./stock.ts"

const way: Raw.Way = {
  // Nothing asks whether the gateway is ready: the first kernel is asked for until there is one, once a second.
  retryEvery: 1000,
  // A pause after the connection is open, "needed on linux".
  pause: 200,
  // Switches off colours, in code of a few lines; nothing in it takes time.
  init: "import os\n%colors nocolor\nos.environ['TERM'] = 'dumb'\nos.environ['NO_COLOR'] = '1'\ndel os",
  // The reply ends the execution; output that comes later is skipped by the next one.
  endsWithReply: true,
}

/** A kernel on a gateway that is there. */
export const make = (url: string) => Raw.make(url, way)

/** A kernel on its own gateway, without a signal when it is ready. */
export const fromNothing = Effect.flatMap(Stock.spawn("command"), ({ url }) => Raw.make(url, way))

/** From a deadline to the failure that tells of it: an interrupt, and a pause in place of a look at the kernel. */
export const timeOut = Effect.fnUntraced(
  function* (
    kernel: Raw.RawKernel,
    { code, deadline }: { readonly code: string; readonly deadline: number },
  ) {
    const running = yield* Effect.forkChild(kernel.execute(code), { startImmediately: true })
    yield* Effect.sleep(deadline)
    const [time] = yield* Effect.timed(Effect.andThen(kernel.interrupt, Effect.sleep(200)))
    yield* Fiber.join(running)
    return time
  },
)
