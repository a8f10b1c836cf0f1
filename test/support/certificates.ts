/** An authority, and certificates of a server at 127.0.0.1 and of a client, made by `openssl` for one test run. */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { temporary } from "./kernel.ts"

/** Makes keys and certificates in a folder that the scope removes. */
export const make = Effect.gen(function* () {
  const folder = yield* temporary
  const openssl = (...args: ReadonlyArray<string>) =>
    execFileSync("openssl", args, { cwd: folder, stdio: ["ignore", "ignore", "pipe"] })
  const read = (name: string) => readFileSync(`${folder}/${name}`, "utf8")
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
  openssl("req", "-x509", ...newKey, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test", "-days", "2")
  writeFileSync(`${folder}/names`, "subjectAltName=IP:127.0.0.1")
  for (const name of ["server", "client"]) {
    openssl("req", ...newKey, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`)
    openssl(
      ...["x509", "-req", "-in", `${name}.csr`, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"],
      ...["-out", `${name}.pem`, "-days", "2", "-extfile", "names"],
    )
  }
  const ca = read("ca.pem")
  return {
    server: {
      ca,
      key: read("server.key"),
      cert: read("server.pem"),
      requestCert: true,
      rejectUnauthorized: true,
    },
    client: { ca, key: read("client.key"), cert: read("client.pem") },
  }
})
