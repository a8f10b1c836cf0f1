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
    projects: [
      { extends: true, test: { name: "plain", include: ["test/**/*_test.ts"] } },
      {
        extends: true,
        test: {
          name: "sandboxed",
          // What a user sees of a kernel, once more with every kernel in a sandbox.
          include: [
            "kernel_client",
            "kernel_setup",
            "kernel_streams",
            "interruption",
            "input",
            "kernel_fault",
            "rich_display",
            "introspection",
            "variables",
            "values",
            "values_stream",
            "values_ways",
            "forged_message",
            "flow_control",
            "own_connection_attack",
            "durable_kernel",
          ].map((
            name,
          ) => `test/${name}_test.ts`),
          // Kernels may write below this TMPDIR: a sandbox is never given all of /tmp.
          env: { EFFECT_JUPYTER_TEST_SANDBOX: "1", TMPDIR: "/tmp/effect-jupyter-sandboxed" },
        },
      },
      {
        extends: true,
        // The same for kernels that are started, where others are forked; in a sandbox they are, too.
        test: {
          name: "started",
          include: ["kernel_client", "kernel_setup", "kernel_streams"].map((name) => `test/${name}_test.ts`),
          env: { EFFECT_JUPYTER_TEST_STARTED: "1" },
        },
      },
    ],
    // Two cores: each file runs a gateway and kernels of its own, and waits for half of its time.
    maxWorkers: 3,
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
})
