import process from "node:process"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const source = (path: string): string => fileURLToPath(new URL(`./src/${path}`, import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^effect-jupyter$/, replacement: source("mod.ts") },
      { find: /^effect-jupyter\/(.+)$/, replacement: source("$1.ts") },
    ],
  },
  test: {
    globalSetup: "test/support/global_setup.ts",
    include: ["test/**/*_test.ts"],
    // Not yet proved steady under load; run it by name: step 2 of the project is open.
    // @effect-diagnostics-next-line processEnv:off
    exclude: process.env.CONNECTION_FAULTS === undefined ? ["test/connection_fault_test.ts"] : [],
    // Two cores: each file runs a gateway and kernels of its own.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
})
