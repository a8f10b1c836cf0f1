/**
 * The sandbox helper: one process for each gateway that converts commands to sandboxed commands and filters the network
 * traffic of kernels. `sandbox/host.py` starts it and exchanges lines of JSON with it over standard input and output.
 *
 * It does not load Effect, so that it starts faster with the gateway.
 *
 * @module
 */
import { SandboxManager } from "@anthropic-ai/sandbox-runtime"
import { randomBytes } from "node:crypto"
import { readFileSync } from "node:fs"
import process from "node:process"
import { createInterface } from "node:readline"
import type { Rules as WideRules } from "./rules.ts"

/** The first line: the settings of all kernels of the gateway. */
interface Settings {
  readonly bwrapPath: string | null
  readonly socatPath: string | null
  readonly ripgrepPath: string
  readonly parentProxy?: { readonly http?: string; readonly https?: string; readonly noProxy?: string } | null
  readonly denyNet: ReadonlyArray<string>
}

/** Every further line: a kernel starts or has ended, or a program on another machine asks for permissions. */
type Request =
  | { readonly number: number; readonly wrap: string; readonly command: string; readonly rules: Rules }
  | { readonly number: number; readonly ended: string }
  | {
    readonly number: number
    readonly narrow: WideRules
    readonly permissions: unknown
    readonly workspace: string
  }

/** The rules of one kernel. Paths are absolute. */
interface Rules {
  readonly allowNet: ReadonlyArray<string>
  readonly allowWrite: ReadonlyArray<string>
  readonly denyWrite: ReadonlyArray<string>
  readonly denyRead: ReadonlyArray<string>
  readonly allowRead: ReadonlyArray<string>
  /** On macOS the sockets that the kernel may create. */
  readonly unixSockets?: ReadonlyArray<string>
}

const send = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`)
const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

/** Ids by which the proxy identifies kernels. Each is a secret, because it grants the permissions of its kernel. */
const commandIds = new Map<string, string>()
const kernels = new Map<string, string>()

async function initialize(
  { bwrapPath, denyNet, parentProxy, ripgrepPath, socatPath }: Settings,
): Promise<void> {
  await SandboxManager.initialize({
    network: {
      // Hosts are allowed for one kernel at a time.
      allowedDomains: [],
      deniedDomains: [...denyNet],
      parentProxy: parentProxy ?? {},
    },
    filesystem: { denyRead: [], allowWrite: [], denyWrite: [] },
    ripgrep: { command: ripgrepPath },
    ...(bwrapPath === null ? {} : { bwrapPath }),
    ...(socatPath === null ? {} : { socatPath }),
  })
  let reportedCount = SandboxManager.getSandboxViolationStore().getTotalCount()
  SandboxManager.getSandboxViolationStore().subscribe((violations) => {
    const total = SandboxManager.getSandboxViolationStore().getTotalCount()
    const fresh = violations.slice(violations.length - Math.min(total - reportedCount, violations.length))
    reportedCount = total
    // A violation without the id of a kernel is attributed to none.
    for (const { command, line } of fresh) {
      send({ violation: line, kernel: kernels.get(command ?? "") ?? null })
    }
  })
}

async function wrap(kernel: string, command: string, rules: Rules): Promise<string> {
  const config = SandboxManager.getConfig()
  if (rules.unixSockets !== undefined && config !== undefined) {
    // Not an option of a single command.
    const network = { ...config.network, allowUnixSockets: [...rules.unixSockets] }
    SandboxManager.updateConfig({ ...config, network })
  }
  // srt requires this number of random bytes.
  const commandId = randomBytes(16).toString("base64url")
  const wrapped = await SandboxManager.wrapWithSandbox(
    command,
    undefined,
    {
      filesystem: {
        allowRead: [...rules.allowRead],
        allowWrite: [...rules.allowWrite],
        denyRead: [...rules.denyRead],
        denyWrite: [...rules.denyWrite],
      },
    },
    undefined,
    { commandId, commandText: commandId },
  )
  SandboxManager.registerCommandNetworkLists(commandId, { allowedDomains: [...rules.allowNet] })
  commandIds.set(kernel, commandId)
  kernels.set(commandId, kernel)
  return wrapped
}

function end(kernel: string): void {
  const commandId = commandIds.get(kernel)
  if (commandId === undefined) return
  commandIds.delete(kernel)
  kernels.delete(commandId)
  // Not `cleanupAfterCommand`: another gateway may have a kernel in the same workspace, see `sandbox/placeholders.py`.
  SandboxManager.unregisterCommandNetworkLists(commandId)
}

/** Wraps commands one after the other: on macOS the allowed sockets of srt are global. */
let wrapped: Promise<unknown> = Promise.resolve()

async function answer(request: Request): Promise<void> {
  const { number } = request
  try {
    if ("ended" in request) {
      // An abandoned start may still be running.
      await wrapped
      end(request.ended)
      send({ number })
    } else if ("narrow" in request) {
      // Loads Effect, which no other request needs.
      const { narrow } = await import("./narrow.ts")
      send({ number, result: await narrow(request.narrow, request.permissions, request.workspace) })
    } else {
      const command = wrapped.then(() => wrap(request.wrap, request.command, request.rules))
      wrapped = command.catch(() => undefined)
      send({ number, result: await command })
    }
  } catch (error) {
    send({ number, error: messageOf(error) })
  }
}

function children(): ReadonlyArray<number> {
  try {
    const text = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8")
    return text.split(" ").filter((pid) => pid !== "").map(Number)
  } catch {
    // Not on macOS, where there are no bridges.
    return []
  }
}

async function main(): Promise<void> {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  const first = await lines.next()
  // The gateway has ended.
  if (first.done === true) return
  try {
    await initialize(JSON.parse(first.value))
    send({ ready: true })
  } catch (error) {
    send({ error: messageOf(error) })
    return
  }
  for (let line = await lines.next(); line.done !== true; line = await lines.next()) {
    void answer(JSON.parse(line.value))
  }
}

await main()
// Not by `reset`, which would clean up after commands as well. The bridges to the proxy are the only child processes.
for (const pid of children()) process.kill(pid)
process.removeAllListeners("exit")
process.exit()
