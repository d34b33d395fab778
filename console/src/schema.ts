/** The messages that a client may send, read from the server's AsyncAPI document, and whether a form's values fit them. */

import type { Json, Message } from "./wire";

type Node = { [key: string]: Json };

export type Kind = "text" | "integer" | "number" | "boolean" | "choice" | "integers" | "json";

export interface Field {
  name: string;
  kind: Kind;
  required: boolean;
  nullable: boolean;
  /** The fixed value of a `const`. */
  fixed: Json | undefined;
  preset: Json | undefined;
  choices: string[];
  format: string | null;
  patterns: string[];
  /** Of a number, or of each number of a list. */
  least: number | null;
  most: number | null;
  /** Of a text in characters, or of a list. */
  shortest: number | null;
  longest: number | null;
  about: string;
}

export interface Sendable {
  type: string;
  group: string;
  summary: string;
  about: string;
  beforeLogin: boolean;
  fields: Field[];
  /** Exactly one of these names must be given. */
  oneOf: string[];
  example: Message;
}

/** Everything that the socket of mini programs receives, in the document's order. */
export function sendables(document: Node): Sendable[] {
  const operations = Object.values(document["operations"] as { [name: string]: Node });
  return operations
    .filter((operation) => operation["action"] === "receive" && refOf(operation["channel"]) === "#/channels/wechat")
    .map((operation) => sendable(document, operation));
}

function sendable(document: Node, operation: Node): Sendable {
  const message = resolve(document, resolve(document, (operation["messages"] as Json[])[0]));
  const payload = resolve(document, message["payload"]);
  const required = new Set((payload["required"] as string[] | undefined) ?? []);
  const properties = payload["properties"] as { [name: string]: Node };
  const examples = message["examples"] as { payload: Message }[] | undefined;
  const type = String(operation["title"]);
  return {
    type,
    group: String((operation["tags"] as Node[] | undefined)?.[0]?.["name"] ?? ""),
    summary: String(operation["summary"] ?? ""),
    about: String(payload["description"] ?? "").trim(),
    beforeLogin: String(operation["description"] ?? "").includes("Also before login"),
    fields: Object.entries(properties).map(([name, node]) => field(document, name, node, required.has(name))),
    oneOf: ((payload["oneOf"] as Node[] | undefined) ?? []).map((each) => String((each["required"] as string[])[0])),
    example: examples?.[0]?.payload ?? { type },
  };
}

function field(document: Node, name: string, node: Node, required: boolean): Field {
  const whole = resolve(document, node);
  const ways = ((whole["anyOf"] as Json[] | undefined) ?? [whole]).map((way) => resolve(document, way));
  const way = ways.find((each) => each["type"] !== "null") ?? whole;
  const items = way["type"] === "array" ? resolve(document, way["items"]) : null;
  const bounded = items ?? way;
  const patterns = [way, ...((way["allOf"] as Node[] | undefined) ?? [])].map((each) => each["pattern"]).filter((each) => typeof each === "string");
  return {
    name,
    kind: kindOf(way, items),
    required,
    nullable: ways.some((each) => each["type"] === "null"),
    fixed: way["const"],
    preset: whole["default"],
    choices: ((way["enum"] as Json[] | undefined) ?? []).map(String),
    format: (way["format"] as string | undefined) ?? null,
    patterns,
    least: number(bounded["minimum"]),
    most: number(bounded["maximum"]),
    shortest: number(way["minLength"] ?? way["minItems"]),
    longest: number(way["maxLength"] ?? way["maxItems"]),
    about: String(whole["description"] ?? way["description"] ?? ""),
  };
}

function kindOf(way: Node, items: Node | null): Kind {
  if (Array.isArray(way["enum"])) return "choice";
  if (items !== null) return items["type"] === "integer" ? "integers" : "json";
  if (way["type"] === "string") return "text";
  if (way["type"] === "integer" || way["type"] === "number" || way["type"] === "boolean") return way["type"];
  return "json";
}

function resolve(document: Node, value: Json | undefined): Node {
  const ref = refOf(value);
  if (ref === null) return (value ?? {}) as Node;
  const found = ref
    .slice(2)
    .split("/")
    .reduce<Json | undefined>((at, key) => (at as Node | undefined)?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], document);
  return resolve(document, found);
}

function refOf(value: Json | undefined): string | null {
  const ref = (value as Node | undefined)?.["$ref"];
  return typeof ref === "string" ? ref : null;
}

function number(value: Json | undefined): number | null {
  return typeof value === "number" ? value : null;
}

// ---- from what is typed to a message ----

export type Problem = "required" | "integer" | "number" | "range" | "length" | "choice" | "format" | "pattern" | "json";

export interface Made {
  message: Message;
  problems: { [name: string]: Problem };
  /** Whether exactly one of `oneOf` is given. */
  onlyOne: boolean;
}

/** The message that the typed texts make. What is left empty is left out. */
export function make(sendable: Sendable, typed: { [name: string]: string }): Made {
  const message: Message = { type: sendable.type };
  const problems: { [name: string]: Problem } = {};
  for (const each of sendable.fields) {
    if (each.fixed !== undefined) continue;
    const text = typed[each.name] ?? "";
    if (text === "") {
      if (each.required) problems[each.name] = "required";
      continue;
    }
    const read = readValue(each, text);
    if (read.problem !== null) problems[each.name] = read.problem;
    message[each.name] = read.value;
  }
  const given = sendable.oneOf.filter((name) => (typed[name] ?? "") !== "");
  return { message, problems, onlyOne: sendable.oneOf.length === 0 || given.length === 1 };
}

/** What a form shows for a value of a message. */
export function typedOf(value: Json | undefined): string {
  if (value === undefined || value === null) return "";
  if (Array.isArray(value) && value.every((each) => typeof each === "number")) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function readValue(each: Field, text: string): { value: Json; problem: Problem | null } {
  switch (each.kind) {
    case "boolean":
      return { value: text === "true", problem: null };
    case "choice":
      return { value: text, problem: each.choices.includes(text) ? null : "choice" };
    case "integer":
    case "number":
      return { value: Number(text), problem: numberProblem(each, text) };
    case "integers": {
      const parts = text.split(/[\s,，]+/).filter(Boolean);
      const problem = parts.map((part) => numberProblem(each, part)).find((found) => found !== null) ?? lengthProblem(each, parts.length);
      return { value: parts.map(Number), problem };
    }
    case "json":
      try {
        return { value: JSON.parse(text) as Json, problem: null };
      } catch {
        return { value: text, problem: "json" };
      }
    case "text":
      return { value: text, problem: textProblem(each, text) };
  }
}

function numberProblem(each: Field, text: string): Problem | null {
  const value = Number(text);
  if (Number.isNaN(value)) return "number";
  if (each.kind !== "number" && !Number.isInteger(value)) return "integer";
  return (each.least !== null && value < each.least) || (each.most !== null && value > each.most) ? "range" : null;
}

function lengthProblem(each: Field, length: number): Problem | null {
  return length < (each.shortest ?? 0) || length > (each.longest ?? Infinity) ? "length" : null;
}

const UUID = /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i;

function textProblem(each: Field, text: string): Problem | null {
  // Characters as the server counts them: those beyond the first 65,536 are two to JavaScript.
  const tooLong = lengthProblem(each, [...text].length);
  if (tooLong !== null) return tooLong;
  if (each.format === "uuid" && !UUID.test(text)) return "format";
  return each.patterns.every((pattern) => new RegExp(pattern, "u").test(text)) ? null : "pattern";
}
