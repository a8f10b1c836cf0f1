/** Processes of servers that end with the process of the tests, also if that is killed and closes no scope. */
import { ChildProcess } from "effect/process"

/** Becomes the program; a process that is not its child waits for the end of the standard input, and ends it. */
const script = `exec 3<&0
(trap '' INT TERM; (cat <&3; kill -s "$0" $$) >/dev/null 2>&1 &)
exec 3<&-
exec "$@" </dev/null`

/** Makes the command of a server, whose standard input is empty. */
export const tied = (
  program: string,
  args: ReadonlyArray<string>,
  { killSignal = "SIGTERM", ...options }: Omit<ChildProcess.CommandOptions, "stdin">,
): ChildProcess.Command =>
  ChildProcess.make("sh", ["-c", script, killSignal.slice("SIG".length), program, ...args], {
    ...options,
    killSignal,
  })
