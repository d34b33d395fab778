import { defineConfig } from "vite";

// One script and one style sheet with plain names: the server gives them addresses with a digest, as it does for /docs.
export default defineConfig({
  build: {
    lib: { entry: "src/main.tsx", formats: ["iife"], name: "CineWireConsole", fileName: () => "console.js", cssFileName: "console" },
    outDir: "../wsserver/contract/static/console",
    emptyOutDir: true,
    target: ["es2022", "chrome111", "firefox114", "safari16.4"],
    reportCompressedSize: false,
  },
});
