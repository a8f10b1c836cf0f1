/**
 * The sandbox helper: a process of its own, one for each gateway, that turns commands into sandboxed commands
 * and filters the network traffic of what runs in them. `sandbox/host.py` starts it and speaks with it in
 * lines of JSON over standard input and output.
 *
 * No Effect in here: its start is part of the gateway's, and it has nothing to share with the program.
 *
 * @module
 */
import { SandboxManager } from "@anthropic-ai/sandbox-runtime"
import { randomBytes } from "node:crypto"
import { readFileSync } from "node:fs"
import process from "node:process"
import { createInterface } from "node:readline"

/** The first line: what holds for all kernels of the gateway. */
interface Settings {
  readonly bwrapPath: string | null
  readonly socatPath: string | null
  readonly ripgrepPath: string
  readonly parentProxy?: { readonly http?: string; readonly https?: string; readonly noProxy?: string } | null
  readonly denyNet: ReadonlyArray<string>
}

/** Every further line: a kernel is to start, or has ended. */
type Request =
  | { readonly number: number; readonly wrap: string; readonly command: string; readonly rules: Rules }
  | { readonly number: number; readonly ended: string }

/** What one kernel may do, in absolute paths. */
interface Rules {
  readonly allowNet: ReadonlyArray<string>
  readonly allowWrite: ReadonlyArray<string>
  readonly denyWrite: ReadonlyArray<string>
  readonly denyRead: ReadonlyArray<string>
  readonly allowRead: ReadonlyArray<string>
  /** On macOS the sockets that the kernel may make. */
  readonly unixSockets?: ReadonlyArray<string>
}

const say = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`)
const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

/** The proxy tells the kernels apart by these names: whoever knows one has its permissions. */
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
  let told = SandboxManager.getSandboxViolationStore().getTotalCount()
  SandboxManager.getSandboxViolationStore().subscribe((violations) => {
    const total = SandboxManager.getSandboxViolationStore().getTotalCount()
    const fresh = violations.slice(violations.length - Math.min(total - told, violations.length))
    told = total
    // Who does not know the name of a kernel cannot speak for it.
    for (const { command, line } of fresh) {
      say({ violation: line, kernel: kernels.get(command ?? "") ?? null })
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
  // As many random bytes as srt asks for.
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

/** Commands are wrapped one after the other: what srt knows of the sockets on macOS is the same for all. */
let wrapped: Promise<unknown> = Promise.resolve()

async function answer(request: Request): Promise<void> {
  const { number } = request
  try {
    if ("ended" in request) {
      // A start that was given up may still be on its way.
      await wrapped
      end(request.ended)
      say({ number })
    } else {
      const command = wrapped.then(() => wrap(request.wrap, request.command, request.rules))
      wrapped = command.catch(() => undefined)
      say({ number, command: await command })
    }
  } catch (error) {
    say({ number, error: messageOf(error) })
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
  // Whoever started us ended, or never meant to.
  if (first.done === true) return
  try {
    await initialize(JSON.parse(first.value))
    say({ ready: true })
  } catch (error) {
    say({ error: messageOf(error) })
    return
  }
  for (let line = await lines.next(); line.done !== true; line = await lines.next()) {
    void answer(JSON.parse(line.value))
  }
}

await main()
// Neither at the end, which `reset` would do: only the bridges to the proxy, which are all that it started.
for (const pid of children()) process.kill(pid)
process.removeAllListeners("exit")
process.exit()
