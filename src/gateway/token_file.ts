/**
 * The file of a gateway's token, by which programs on other machines are given it.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Redacted from "effect/Redacted"
import { InvalidOption } from "../options/check.ts"
import { type GatewayError, gatewayError } from "./error.ts"

/** Returns a random token, or another secret. */
export const random = (label: string): Redacted.Redacted<string> =>
  Redacted.make(Hex.encode(SecureRandom.randomBytesUnsafe(32)), { label })

/** The bits of a mode that let users read or write who are neither the owner nor in the group. */
const others = 0o006

/** Minimum characters of a token, and the maximum: it is sent in a header, whose size servers and proxies bound. */
const minLength = 16
const maxLength = 4096

/**
 * Reads the token of a file, which is created with a random one if it does not exist. Fails with `InvalidOption` if it
 * cannot be read, has no token, or if other users can read or change it.
 */
export const read: (
  file: string,
) => Effect.Effect<Redacted.Redacted<string>, GatewayError, FileSystem.FileSystem | Path.Path> = Effect
  .fnUntraced(function* (file) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const refused = (detail: string) =>
      gatewayError(new InvalidOption({ option: "tokenFile", value: JSON.stringify(file), detail }))
    const failed = (error: PlatformError.PlatformError) => refused(`it cannot be used: ${error.message}`)
    yield* Effect.mapError(
      Effect.flatMap(fs.exists(file), (exists) => exists ? Effect.void : create(fs, path.resolve(file))),
      failed,
    )
    const { mode, size } = yield* Effect.mapError(fs.stat(file), failed)
    if ((mode & others) !== 0) return yield* refused(`other users can use it; run "chmod 600 ${file}"`)
    const noToken = refused(
      `its content is no token of one word with ${minLength} to ${maxLength} characters; remove it for a new one`,
    )
    // With space for the end of the line.
    if (size > maxLength + 2) return yield* noToken
    const token = (yield* Effect.mapError(fs.readFileString(file), failed)).trim()
    if (!/^[\x21-\x7e]*$/.test(token) || token.length < minLength || token.length > maxLength) {
      return yield* noToken
    }
    return Redacted.make(token, { label: "gateway token" })
  })

/** Creates the file with its content at once, so that of several programs all use the first. */
const create = (fs: FileSystem.FileSystem, file: string) => {
  const draft = `${file}.${Redacted.value(random("name")).slice(0, 8)}`
  return Effect.acquireUseRelease(
    fs.writeFileString(draft, `${Redacted.value(random("gateway token"))}\n`, { flag: "wx", mode: 0o600 }),
    () => Effect.catchReason(fs.link(draft, file), "PlatformError", "AlreadyExists", () => Effect.void),
    () => Effect.ignore(fs.remove(draft)),
  )
}
