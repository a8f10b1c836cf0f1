/** Debian's PostgreSQL, with data in a temporary folder and a Unix socket in it, as an unprivileged user. */
import { PgClient } from "@effect/sql-pg"
import { Effect, FileSystem, Layer, Schedule } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { randomUUID } from "node:crypto"
import { existsSync, globSync } from "node:fs"
import { delimiter, dirname } from "node:path"
import process from "node:process"
import * as Platform from "../../src/platform.ts"
import { nobody, temporary } from "./kernel.ts"
import { tied } from "./tied.ts"

/** The folder of the programs of PostgreSQL; undefined if it is not installed. */
export const programs = [
  ...globSync("/usr/lib/postgresql/*/bin/initdb").map((path) => dirname(path)).toSorted().toReversed(),
  ...(Platform.variable("PATH") ?? "").split(delimiter),
].find((folder) => existsSync(`${folder}/initdb`) && existsSync(`${folder}/postgres`))

const isRoot = process.geteuid?.() === 0
const become = isRoot ? ["setpriv", `--reuid=${nobody.uid}`, `--regid=${nobody.gid}`, "--clear-groups"] : []

/** Makes the command that runs a program of PostgreSQL, which refuses root. */
const command = (program: string, args: ReadonlyArray<string>, cwd: string) => {
  const [first = "", ...rest] = [...become, `${programs}/${program}`, ...args]
  return tied(first, rest, {
    cwd,
    extendEnv: true,
    stdout: "ignore",
    stderr: "inherit",
    killSignal: "SIGINT",
    forceKillAfter: "10 seconds",
  })
}

class Unusable extends Error {}

/** Starts a server, which ends with the scope. Returns the folder of its socket. */
export const serve = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* temporary
  if (isRoot) yield* fs.chown(folder, nobody.uid, nobody.gid)
  const data = `${folder}/data`
  const made = yield* command(
    "initdb",
    ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
    folder,
  )
  const code = yield* made.exitCode
  if (code !== 0) return yield* Effect.die(new Unusable(`initdb ended with ${code}`))
  const settings = {
    listen_addresses: "",
    unix_socket_directories: folder,
    fsync: "off",
    log_min_messages: "fatal",
    shared_preload_libraries: "pg_stat_statements",
  }
  yield* command(
    "postgres",
    ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
    folder,
  )
  yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`select 1`).pipe(
    Effect.retry(Schedule.spaced("50 millis").pipe(Schedule.upTo({ duration: "20 seconds" }))),
    Effect.provide(clientLayer({ folder, name: "postgres" })),
  )
  return folder
}).pipe(Effect.orDie)

/** A database of a server: the folder of its socket, and its name. */
export interface Database {
  readonly folder: string
  readonly name: string
}

/** Makes a database. */
export const makeDatabase = Effect.fnUntraced(function* (folder: string) {
  const name = `test_${randomUUID().replaceAll("-", "")}`
  yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`create database ${sql(name)}`).pipe(
    Effect.provide(clientLayer({ folder, name: "postgres" })),
    Effect.orDie,
  )
  return { folder, name }
})

/** A client of a database. */
export const clientLayer = (
  { folder, name }: Database,
  applicationName?: string,
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError> =>
  PgClient.layer({ host: folder, username: "postgres", database: name, applicationName })
