/** A Python with Enterprise Gateway, which needs older packages than anything else here and so has its own. */
import type { Effect } from "effect"
import type * as Platform from "../../src/platform.ts"
import * as ToolEnvironment from "./tool_environment.ts"

/** The interpreter, in the user's cache; `undefined` where it cannot be installed, as on Pythons after 3.11. */
export const provision: Effect.Effect<string | undefined, never, Platform.Platform> = ToolEnvironment
  .provision("test-enterprise-gateway", ["jupyter_enterprise_gateway==3.3.0", "ipykernel>=6,<6.20"])
