// Reads an AsyncAPI document from standard input; says as JSON what the official parser found in it and finds wrong with it.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
const operations = document ? document.operations().all() : [];
console.log(
  JSON.stringify({
    diagnostics: diagnostics.map(({ severity, code, path, message }) => ({
      severity,
      code,
      path: path.join("/"),
      message,
    })),
    operations: operations.map((operation) => ({
      id: operation.id(),
      action: operation.action(),
      messages: operation.messages().all().map((message) => message.name()),
      replies: operation.reply() ? operation.reply().messages().all().map((message) => message.name()) : [],
      examples: operation.messages().all().flatMap((message) => message.examples().all()).length,
    })),
  }),
);
