import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

// In development the gateway's HTTP API is asked through a proxy: ESPLANADE_API=http://127.0.0.1:8080 npm run dev
const api = process.env.ESPLANADE_API ?? "http://127.0.0.1:8787";

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: { outDir: "dist", target: "es2022", sourcemap: false, chunkSizeWarningLimit: 900 },
  server: { host: "127.0.0.1", proxy: { "/v1": { target: api, ws: true } } },
  test: { include: ["test/**/*.test.ts"], environment: "node" },
});
