/** The public surface: the subpaths of the package and the names of its modules. */
import { assert, describe, it } from "@effect/vitest"
import { globSync } from "node:fs"
import { createRequire } from "node:module"
import manifest from "../package.json" with { type: "json" }
import * as Library from "../src/mod.ts"

/** The values that each public module exports. */
const surface: Record<string, ReadonlyArray<string>> = {
  Execution: [
    "Chunk",
    "ClearOutput",
    "ConnectionLost",
    "DisplayChunk",
    "ExecutionAborted",
    "ExecutionError",
    "ExecutionFailure",
    "ExecutionRef",
    "ExecutionResult",
    "ExecutionTimeout",
    "Forbidden",
    "Image",
    "InputRequested",
    "InvalidOption",
    "KernelDied",
    "KernelError",
    "KernelErrorReason",
    "KernelNotFound",
    "KernelOutput",
    "KernelRef",
    "KernelStartFailed",
    "KernelUnresponsive",
    "NoSuchKernelspec",
    "OutputGone",
    "ProtocolViolation",
    "ResourceLimit",
    "ServerReplaced",
    "SessionTaken",
    "TextChunk",
    "Unsupported",
    "best",
    "isKernelError",
    "preference",
  ],
  Introspection: [
    "Completeness",
    "Completion",
    "HistoryEntry",
    "Inspection",
    "IntrospectionFailed",
    "KernelBusy",
    "KernelInfo",
    "Variable",
  ],
  JupyterHub: [
    "Progress",
    "UserServer",
    "layer",
    "make",
  ],
  KernelClient: [
    "KernelClient",
    "attach",
    "layer",
    "layerAttach",
    "layerConfig",
    "layerRpc",
    "make",
  ],
  KernelCluster: [
    "KernelRefs",
    "entity",
    "layer",
    "layerClient",
  ],
  KernelGateway: [
    "AssetsMissing",
    "CredentialsFailed",
    "Exited",
    "FolderRefused",
    "GatewayError",
    "GatewayErrorReason",
    "InvalidOption",
    "KernelGateway",
    "Kernelspec",
    "OptionsMismatch",
    "PortInUse",
    "ProvisioningFailed",
    "PythonNotFound",
    "RunningKernel",
    "StartFailed",
    "StartTimeout",
    "Unauthorized",
    "Unreachable",
    "isGatewayError",
    "layer",
    "layerConfig",
    "layerRemote",
    "layerShared",
    "make",
    "makeShared",
    "stopShared",
  ],
  KernelPool: [
    "KernelPool",
    "layer",
    "layerClient",
    "layerConfig",
    "make",
  ],
  KernelRpc: [
    "KernelClient",
    "group",
    "layerClient",
    "layerHandlers",
  ],
  KernelSessions: [
    "Closed",
    "Died",
    "Evicted",
    "Idle",
    "KernelSessions",
    "Opened",
    "Replaced",
    "Session",
    "SessionEvent",
    "layer",
    "layerClient",
    "make",
  ],
  PythonEnvironment: [
    "PythonEnvironment",
    "layer",
    "layerConfig",
    "make",
  ],
  Sandbox: [
    "InvalidSettings",
    "NamespacesDisabled",
    "RunningAsRoot",
    "SandboxError",
    "SandboxErrorReason",
    "StartFailed",
    "ToolMissing",
    "UnsupportedPlatform",
    "Violation",
    "isSandboxError",
    "violations",
  ],
  Testing: [
    "TestKernel",
    "display",
    "executed",
    "layer",
    "layerPool",
  ],
  Values: [
    "InvalidName",
    "NdArray",
    "UnsupportedValue",
  ],
}

const subpaths: Record<string, string> = {
  execution: "Execution",
  introspection: "Introspection",
  jupyter_hub: "JupyterHub",
  kernel_client: "KernelClient",
  kernel_cluster: "KernelCluster",
  kernel_gateway: "KernelGateway",
  kernel_pool: "KernelPool",
  kernel_rpc: "KernelRpc",
  kernel_sessions: "KernelSessions",
  python_environment: "PythonEnvironment",
  sandbox: "Sandbox",
  testing: "Testing",
  values: "Values",
}

describe("the public surface", () => {
  it("the entry exports one namespace per public module, each with its names", () => {
    const names = Object.entries(Library).map(([name, module]) => [name, Object.keys(module).toSorted()])
    assert.deepStrictEqual(Object.fromEntries(names), surface)
  })

  it("exports has the public modules, ./jupyter/* and the manifest", () => {
    assert.deepStrictEqual(
      Object.keys(manifest.exports).toSorted(),
      [
        ".",
        "./jupyter/*",
        "./package.json",
        ...Object.keys(subpaths).map((name) => `./${name}`),
      ].toSorted(),
    )
    assert.deepStrictEqual(Object.values(subpaths).toSorted(), Object.keys(surface).toSorted())
  })

  it("exports resolves no other module of src", () => {
    const { resolve } = createRequire(import.meta.url)
    const refused = globSync("src/**/*.ts").flatMap((file) => {
      const subpath = file.slice("src/".length, -".ts".length)
      try {
        resolve(`effect-jupyter/${subpath}`)
        return []
      } catch (error) {
        // A public module that is not built is missing, but not refused.
        return error instanceof Error && "code" in error && error.code === "ERR_PACKAGE_PATH_NOT_EXPORTED"
          ? [subpath]
          : []
      }
    })
    const isPublic = (subpath: string): boolean => subpath in subpaths || subpath.startsWith("jupyter/")
    assert.deepStrictEqual(
      refused.toSorted(),
      globSync("src/**/*.ts").map((file) => file.slice("src/".length, -".ts".length))
        .filter((subpath) => !isPublic(subpath)).toSorted(),
    )
  })
})
