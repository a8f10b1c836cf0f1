/**
 * Handles the other keys of a settings file of Anthropic's sandbox runtime: those without an effect on kernels, and those
 * that a kernel's sandbox cannot enforce.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import { InvalidSettings, type SandboxError, sandboxError } from "./error.ts"

const stronger = "Kernels get the stronger sandbox"
const found = "The tools are found on the PATH, where no kernel may write"
const systems = "It says nothing about kernels"
const judged = 'Only a program can judge requests; allow hosts by "network.allowedDomains"'
const proxied =
  'Kernels are told apart by a proxy of their own; give another one behind it by "network.parentProxy"'
const unheld = 'Kernels cannot be held to it; remove it, and deny hosts by "network.deniedDomains"'

/** Keys without an effect, with the reason: kernels are never allowed it, or it does not concern them. */
const ignored: Readonly<Record<string, string>> = {
  "enableWeakerNestedSandbox": stronger,
  "enableWeakerNetworkIsolation": stronger,
  "allowPty": stronger,
  "filesystem.allowGitConfig": stronger,
  "network.allowLocalBinding":
    "Kernels on Linux have a loopback of their own, others get the stronger sandbox",
  "network.allowMachLookup": stronger,
  "network.allowUnixSockets": stronger,
  "network.deniedDomainReasons": "Sandbox.violations tells of what is denied",
  "network.strictAllowlist": "Kernels reach nothing but allowed hosts anyway",
  "network.allowPlaintextHeaderSet": judged,
  "network.ambiguousRequestTarget": judged,
  "ignoreViolations": "Sandbox.violations tells of all",
  "ripgrep": found,
  "bwrapPath": found,
  "socatPath": found,
  "seccomp": found,
  "javaAgentJarPath": found,
  "windows": systems,
  "git": systems,
}

/** Keys that would weaken the sandbox, or that are restrictions it cannot enforce, with advice. */
const refused: Readonly<Record<string, string>> = {
  "allowAppleEvents": "It lets code start programs outside of the sandbox; remove it",
  "allowNestedUserNamespaces": "It lets code undo what it may not write; remove it",
  "filesystem.disabled": 'It takes away all rules for files; name folders in "filesystem.allowWrite"',
  "network.allowAllUnixSockets": "It opens the sockets of the machine; remove it",
  "network.httpProxyPort": proxied,
  "network.socksProxyPort": proxied,
  "network.mitmProxy": proxied,
  "network.tlsTerminate": proxied,
  "network.filterRequest": judged,
  "network.deniedResolvedAddresses": unheld,
  "network.refuseOpaqueTunnels": unheld,
  "network.requireHostMatch": unheld,
  "network.stripResponseHeaders": unheld,
  "mandatoryDenySearchDepth":
    'Kernels are held to the default, 3; name what is deeper in "filesystem.denyWrite"',
  "credentials":
    'Kernels cannot be held to it; kernels get no variables but those of the option "env", and files are ' +
    'denied by "filesystem.denyRead"',
}

/** Tells whether a value of a key is equivalent to its absence. */
const isDefault = (key: string, value: unknown): boolean =>
  value === null || value === false || (typeof value === "object" && Object.values(value).every((inner) =>
    isDefault("", inner)
  )) ||
  (key === "mandatoryDenySearchDepth" && typeof value === "number" && value <= 3)

/**
 * Removes keys without an effect from settings, with a warning for each, and fails with the first key that is refused.
 * Keys that the format does not define stay.
 */
export const strip: (json: unknown, file: string) => Effect.Effect<unknown, SandboxError> = Effect.fnUntraced(
  function* (json: unknown, file: string) {
    if (!Predicate.isObject(json)) return json
    const visit: (prefix: string, object: object) => Effect.Effect<object, SandboxError> = Effect.fnUntraced(
      function* (prefix: string, object: object) {
        const kept: Array<readonly [string, unknown]> = []
        for (const [name, value] of Object.entries(object)) {
          const key = `${prefix}${name}`
          const refusal = refused[key]
          const reason = ignored[key]
          if (refusal !== undefined) {
            if (isDefault(key, value)) continue
            return yield* sandboxError(new InvalidSettings({ file, key, detail: refusal }))
          }
          if (reason === undefined) {
            const isGroup = prefix === "" && (name === "network" || name === "filesystem") &&
              Predicate.isObject(value)
            kept.push([name, isGroup ? yield* visit(`${name}.`, value) : value])
          } else if (!isDefault(key, value)) {
            yield* Effect.logWarning(`The key "${key}" of "${file}" has no effect: ${reason}`)
          }
        }
        return Object.fromEntries(kept)
      },
    )
    return yield* visit("", json)
  },
)
