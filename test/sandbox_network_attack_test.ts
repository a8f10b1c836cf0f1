/** Attacks of sandboxed code on the network. */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import { KernelClient, KernelGateway, Sandbox } from "../src/mod.ts"
import { type FakeProxy, fakeProxy } from "./support/fake_proxy.ts"
import { slow } from "./support/kernel.ts"
import { eventually } from "./support/processes.ts"
import { attack, attacker, outcomes, py, sandboxLayer } from "./support/sandbox.ts"

/** The server outside of the sandbox, which stands for the internet. */
class Internet extends Context.Service<Internet, FakeProxy>()("test/Internet") {}

const attacked = Layer.unwrap(
  Effect.map(
    Internet,
    ({ url }) => sandboxLayer({ allowNet: ["example.org", "example.net"], upstreamProxy: url }),
  ),
).pipe(Layer.provideMerge(Layer.effect(Internet, fakeProxy)))

/** Python that speaks with the proxy of the sandbox. */
const speak = `
import base64, urllib.parse, urllib.request

proxy = urllib.parse.urlsplit(os.environ["HTTP_PROXY"])
own = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password)}"

def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as peer:
        peer.settimeout(10)
        peer.connect(address)

def ask(request, host="example.org", credentials=own):
    """The status that the proxy answers with."""
    lines = [f"{request} HTTP/1.1", f"Host: {host}", "Connection: close"]
    if credentials is not None:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}")
    with socket.create_connection((proxy.hostname, proxy.port), 20) as peer:
        peer.sendall("\\r\\n".join([*lines, "", ""]).encode("latin-1"))
        return int(peer.makefile("rb").readline().split()[1])

def socks(host, port, credentials=own):
    """What the SOCKS proxy answers with: 0 for a connection, 2 for one that is not allowed."""
    user, _, password = credentials.encode().partition(b":")
    with socket.create_connection(("localhost", 1080), 20) as peer:
        peer.sendall(b"\\5\\1\\2")
        peer.recv(2)
        peer.sendall(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if peer.recv(2)[1:] != b"\\0":
            return "refused"
        peer.sendall(b"\\5\\1\\0\\3" + bytes([len(host)]) + host.encode() + struct.pack(">H", port))
        return peer.recv(10)[1]

def get(url):
    """The text of a page, or the status."""
    try:
        return urllib.request.urlopen(url, timeout=20).read().decode()
    except urllib.error.HTTPError as error:
        return error.code
`

const gatewayPort = Effect.map(KernelGateway.KernelGateway, ({ url }) => Number(new URL(url).port))

/** The port in all the ways in which this machine can be called. */
const names = [
  "127.0.0.1",
  "localhost",
  "[::1]",
  "0.0.0.0",
  "[::ffff:127.0.0.1]",
  "2130706433",
  "127.1",
  "0x7f000001",
  "017700000001",
  "localhost.",
  "127.0.0.1.",
  "[::]",
]

/** Denied hosts, as they are told; grows for as long as the scope lives. */
const violations = Effect.gen(function* () {
  const seen: Array<Sandbox.Violation> = []
  yield* Stream.runForEach(Sandbox.violations, (violation) => Effect.sync(() => seen.push(violation))).pipe(
    Effect.forkScoped({ startImmediately: true }),
  )
  return seen
})

layer(attacked, slow)("the network of a sandbox", (it) => {
  it.effect("1: TCP to the gateway: refused", () =>
    Effect.gen(function* () {
      const port = yield* gatewayPort
      const results = yield* attack(`${speak}
for host in ("127.0.0.1", "127.0.0.2", "0.0.0.0"):
    attempt(host, lambda: connect(socket.AF_INET, (host, ${port})))
attempt("::1", lambda: connect(socket.AF_INET6, ("::1", ${port})))
attempt("::ffff:127.0.0.1", lambda: connect(socket.AF_INET6, ("::ffff:127.0.0.1", ${port})))
`)
      assert.deepStrictEqual(results, {
        "127.0.0.1": "ECONNREFUSED",
        "127.0.0.2": "ECONNREFUSED",
        "0.0.0.0": "ECONNREFUSED",
        "::1": "ECONNREFUSED",
        "::ffff:127.0.0.1": "ECONNREFUSED",
      })
    }))

  it.effect("2: TCP to another host service: refused", () =>
    Effect.gen(function* () {
      const { port, requests } = yield* Internet
      const before = requests.length
      const results = yield* attack(`${speak}
attempt("a service", lambda: connect(socket.AF_INET, ("127.0.0.1", ${port})))
# Where the sandbox's own proxy listens on the host.
attempt("the proxy", lambda: connect(socket.AF_INET, ("127.0.0.1", int(os.environ["CLAUDE_CODE_HOST_HTTP_PROXY_PORT"]))))
`)
      assert.deepStrictEqual(results, { "a service": "ECONNREFUSED", "the proxy": "ECONNREFUSED" })
      assert.lengthOf(requests, before)
    }))

  it.effect("3: external v4, v6 and UDP: unreachable", () =>
    Effect.gen(function* () {
      // Addresses that stand for no machine, and the one of clouds' secrets.
      const results = yield* attack(`${speak}
attempt("v4", lambda: connect(socket.AF_INET, ("192.0.2.1", 80)))
attempt("v6", lambda: connect(socket.AF_INET6, ("2001:db8::1", 80)))
attempt("metadata", lambda: connect(socket.AF_INET, ("169.254.169.254", 80)))
attempt("UDP v4", lambda: connect(socket.AF_INET, ("192.0.2.1", 53), socket.SOCK_DGRAM))
attempt("UDP v6", lambda: connect(socket.AF_INET6, ("2001:db8::1", 53), socket.SOCK_DGRAM))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
    attempt("sendto", lambda: peer.sendto(b"x", ("192.0.2.1", 53)))
    attempt("multicast", lambda: peer.sendto(b"x", ("224.0.0.251", 5353)))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    attempt("broadcast", lambda: peer.sendto(b"x", ("255.255.255.255", 9)))
attempt("interfaces", lambda: [name for _, name in socket.if_nameindex()])
`)
      const { interfaces, ...targets } = results
      assert.strictEqual(interfaces, '["lo"]')
      assert.lengthOf(Object.keys(targets), 8)
      assert.deepStrictEqual([...new Set(Object.values(targets))], ["ENETUNREACH"])
    }))

  it.effect("4: DNS: fails", () =>
    Effect.gen(function* () {
      const results = yield* attack(`
attempt("example.com", lambda: socket.getaddrinfo("example.com", 80))
attempt("example.org", lambda: socket.getaddrinfo("example.org", 80))
`)
      // An allowed host neither: the proxy looks for it.
      assert.deepStrictEqual(results, { "example.com": "EAI_AGAIN", "example.org": "EAI_AGAIN" })
    }))

  it.effect("5: raw and packet sockets: EPERM", () =>
    Effect.gen(function* () {
      const results = yield* attack(`
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_PACKET):
    attempt(f"{family.name} raw", lambda: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt("AF_PACKET datagram", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM))
`)
      assert.deepStrictEqual(results, {
        "AF_INET raw": "EPERM",
        "AF_INET6 raw": "EPERM",
        "AF_PACKET raw": "EPERM",
        "AF_PACKET datagram": "EPERM",
      })
    }))

  it.effect("6: CONNECT to the gateway through the proxy as 127.0.0.1, localhost, [::1], 0.0.0.0, ::ffff:127.0.0.1, 2130706433: 403", () =>
    Effect.gen(function* () {
      const { requests } = yield* Internet
      const before = requests.length
      const port = yield* gatewayPort
      const results = yield* attack(`${speak}
for name in ${py(names)}:
    attempt(name, lambda: ask(f"CONNECT {name}:${port}", f"{name}:${port}"))
    attempt(f"{name} by SOCKS", lambda: socks(name.strip("[]"), ${port}))
`)
      for (const name of names) {
        assert.strictEqual(results[name], "403", name)
        assert.strictEqual(results[`${name} by SOCKS`], "2", name)
      }
      assert.lengthOf(requests, before)
    }))

  it.effect("7: absolute-form GET with a false Host: 403", () =>
    Effect.gen(function* () {
      const { requests } = yield* Internet
      const before = requests.length
      const port = yield* gatewayPort
      const results = yield* attack(`${speak}
attempt("127.0.0.1", lambda: ask("GET http://127.0.0.1:${port}/api"))
attempt("localhost", lambda: ask("GET http://localhost:${port}/api"))
attempt("example.com", lambda: ask("GET http://example.com/"))
attempt("as a user name", lambda: ask("GET http://example.org@127.0.0.1:${port}/"))
attempt("as a password", lambda: ask("GET http://user:example.org@127.0.0.1:${port}/"))
`)
      assert.lengthOf(Object.keys(results), 5)
      assert.deepStrictEqual([...new Set(Object.values(results))], ["403"])
      assert.lengthOf(requests, before)
      // The other way round the line counts, not the header.
      const { reversed } = yield* attack(
        `attempt("reversed", lambda: ask("GET http://example.org/reversed", "127.0.0.1:${port}"))`,
      )
      assert.strictEqual(reversed, "200")
      assert.deepStrictEqual(requests.slice(before), ["GET http://example.org/reversed"])
    }))

  it.effect("8: proxy without credentials: 407", () =>
    Effect.gen(function* () {
      const { requests } = yield* Internet
      const before = requests.length
      const results = yield* attack(`${speak}
user, _, password = own.partition(":")
for request in ("GET http://example.org/", "CONNECT example.org:443"):
    method = request.split()[0]
    attempt(f"{method} none", lambda: ask(request, credentials=None))
    attempt(f"{method} no user", lambda: ask(request, credentials=f":{password}"))
    attempt(f"{method} wrong password", lambda: ask(request, credentials=f"{user}:{password[:-1]}"))
    attempt(f"{method} another user", lambda: ask(request, credentials=f"srt.AAAA:{password}"))
    attempt(f"{method} nobody's user", lambda: ask(request, credentials=f"srt:{password}"))
attempt("SOCKS wrong password", lambda: socks("example.org", 80, f"{user}:x"))
attempt("SOCKS another user", lambda: socks("example.org", 80, f"srt.AAAA:{password}"))
`)
      assert.deepStrictEqual(results, {
        "GET none": "407",
        "GET no user": "407",
        "GET wrong password": "407",
        // The password is the gateway's; the permissions depend on the user name, which is random.
        "GET another user": "403",
        "GET nobody's user": "403",
        "CONNECT none": "407",
        "CONNECT no user": "407",
        "CONNECT wrong password": "407",
        "CONNECT another user": "403",
        "CONNECT nobody's user": "403",
        "SOCKS wrong password": "refused",
        "SOCKS another user": "2",
      })
      assert.lengthOf(requests, before)
    }))

  it.effect("9: NUL in a host name: 400", () =>
    Effect.gen(function* () {
      const { requests } = yield* Internet
      const before = requests.length
      const results = yield* attack(`${speak}
attempt("CONNECT", lambda: ask("CONNECT example.org\\0.example.com:443"))
attempt("GET", lambda: ask("GET http://example.org\\0.example.com/"))
attempt("SOCKS", lambda: socks("example.com\\0.example.org", 80))
attempt("encoded", lambda: ask("CONNECT example.org%00.example.com:443"))
attempt("encoded GET", lambda: ask("GET http://example.org%00.example.com/"))
`)
      assert.deepStrictEqual(results, {
        CONNECT: "400",
        GET: "400",
        SOCKS: "2",
        encoded: "403",
        // No URL at all, which srt's proxy answers as a failure of its own.
        "encoded GET": "500",
      })
      assert.lengthOf(requests, before)
    }))

  it.effect("two kernels with different allow lists on one gateway reach each its own hosts and no others", () =>
    Effect.gen(function* () {
      const { requests } = yield* Internet
      const kernels = {
        org: yield* attacker({ sandbox: { allowNet: ["example.org"] } }),
        net: yield* attacker({ sandbox: { allowNet: ["example.net"] } }),
        none: yield* attacker({ sandbox: {} }),
      }
      const hosts = ["example.org", "example.net", "example.com", "sub.example.org", "example.org.evil.test"]
      const reach = (kernel: KernelClient.Kernel) =>
        outcomes(
          kernel,
          `${speak}
for host in ${py(hosts)}:
    attempt(host, lambda: get(f"http://{host}/"))
    attempt(f"{host} TLS", lambda: ask(f"CONNECT {host}:443"))
`,
        )
      const before = requests.length
      const results = yield* Effect.all({
        org: reach(kernels.org),
        net: reach(kernels.net),
        none: reach(kernels.none),
      }, { concurrency: "unbounded" })
      for (const host of hosts) {
        for (const [name, result] of Object.entries(results)) {
          const allowed = host === `example.${name}`
          assert.strictEqual(result[host], allowed ? `${host} through the proxy` : "403", `${name} ${host}`)
          assert.strictEqual(result[`${host} TLS`], allowed ? "200" : "403", `${name} ${host}`)
        }
      }
      assert.deepStrictEqual(requests.slice(before).toSorted(), [
        "CONNECT example.net:443",
        "CONNECT example.org:443",
        "GET http://example.net/",
        "GET http://example.org/",
      ])
    }))

  it.effect("a kernel finds no other kernel's proxy credentials", () =>
    Effect.gen(function* () {
      const [rich, poor] = yield* Effect.all([
        attacker({ sandbox: { allowNet: ["example.org"] } }),
        attacker({ sandbox: {} }),
      ], { concurrency: 2 })
      const { user = "" } = yield* outcomes(rich, `${speak}\nattempt("user", lambda: own.split(":")[0])`)
      assert.match(user, /^srt\..{16,}/)
      const results = yield* outcomes(
        poor,
        `${speak}
secret = ${py(user)}
# Put together here, or this code itself would be found.
secrets = [secret.encode(), urllib.parse.quote(secret, safe="").encode(), base64.b64decode(secret[4:] + "==")]

def files():
    for folder in (runtime, os.getcwd(), "/dev/shm", "/run", "/var/run"):
        for path, _, names in os.walk(folder):
            yield from (os.path.join(path, name) for name in names)
    for name in filter(str.isdigit, os.listdir("/proc")):
        yield from (f"/proc/{name}/environ", f"/proc/{name}/cmdline")

def holds(path):
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            content = file.read(10_000_000)
    except OSError:
        return False
    return any(each in content for each in secrets)

attempt("environment", lambda: any(secret in value for value in os.environ.values()))
# What was executed here is in the history of this kernel.
attempt("files", lambda: [path for path in files() if holds(path) and not path.startswith(f"{here}/ipython/")])
attempt("its own", lambda: ask("GET http://example.org/"))
attempt("the password is the same", lambda: ask("GET http://example.org/", credentials=f"{secret}:{proxy.password}"))
`,
      )
      assert.deepStrictEqual(results, {
        environment: "false",
        files: "[]",
        "its own": "403",
        // Therefore the search above matters.
        "the password is the same": "200",
      })
    }))

  it.effect("the violations name every denied host, and whose it was", () =>
    Effect.gen(function* () {
      const seen = yield* violations
      const kernel = yield* attacker({ sandbox: { allowNet: ["example.org"] } })
      yield* outcomes(
        kernel,
        `${speak}
get("http://example.org/")
get("http://one.example.com/")
ask("CONNECT two.example.com:443")
socks("three.example.com", 8080)
ask("CONNECT 127.0.0.1:22")
ask("CONNECT [::1]:22")
`,
      )
      const expected = [
        "one.example.com:80",
        "two.example.com:443",
        "three.example.com:8080",
        "127.0.0.1:22",
        "::1:22",
      ]
      const own = () => seen.filter(({ kernelId }) => kernelId === kernel.id).map(({ host }) => host)
      yield* eventually(() => expected.find((host) => !own().includes(host)))
      assert.deepStrictEqual(own().toSorted(), expected.toSorted())
    }))

  it.effect("a kernel cannot have what it tried put down to another kernel", () =>
    Effect.gen(function* () {
      const seen = yield* violations
      const victim = yield* KernelClient.KernelClient
      const results = yield* attack(`${speak}
claimed = "srt." + base64.b64encode(b${py(victim.id)}).decode()
attempt("claimed", lambda: ask("CONNECT claimed.example.com:443", credentials=f"{claimed}:{proxy.password}"))
attempt("own", lambda: ask("CONNECT own.example.com:443"))
`)
      assert.deepStrictEqual(results, { claimed: "403", own: "403" })
      const kernelOf = (host: string) => seen.find((violation) => violation.host === host)
      yield* eventually(() => kernelOf("own.example.com:443") === undefined ? "not told yet" : undefined)
      assert.strictEqual(kernelOf("own.example.com:443")?.kernelId, victim.id)
      const claimed = kernelOf("claimed.example.com:443")
      assert.isDefined(claimed)
      assert.isUndefined(claimed?.kernelId)
    }))
})
