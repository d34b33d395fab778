/** Every frame both ways, and what became of the connection between them: the newest of them, as they were. */

import { Store } from "./store";
import { type Frame, frameOf, sizeOf } from "./wire";

/** Beyond this the oldest go: a browser shows so many rows without becoming slow. */
const KEPT = 1000;

/** Frames come in hundreds when an answer is resumed: the page is drawn for all of them together. */
const PACE_MS = 30;

export type Direction = "in" | "out" | "event";

export interface Entry {
  number: number;
  /** Epoch milliseconds, with fractions. */
  at: number;
  direction: Direction;
  text: string;
  sizeBytes: number;
  frame: Frame | null;
}

export interface Filter {
  words: string;
  direction: "all" | "in" | "out";
  heartbeat: boolean;
}

export class Log {
  readonly entries = new Store<readonly Entry[]>([], PACE_MS);
  private count = 0;

  add(direction: Direction, text: string, frame: Frame | null = frameOf(text)): void {
    this.count += 1;
    const at = performance.timeOrigin + performance.now();
    const entry = { number: this.count, at, direction, text, frame, sizeBytes: direction === "event" ? 0 : sizeOf(text) };
    this.entries.update((entries) => [...entries.slice(-(KEPT - 1)), entry]);
  }

  clear(): void {
    this.entries.set([]);
  }
}

/** The entries that a filter lets through. Words may stand anywhere in the frame, each of them must. */
export function filtered(entries: readonly Entry[], filter: Filter): Entry[] {
  const words = filter.words.toLowerCase().split(/\s+/).filter(Boolean);
  return entries.filter((entry) => {
    if (filter.direction !== "all" && entry.direction !== filter.direction) return false;
    if (!filter.heartbeat && (entry.frame?.type === "ping" || entry.frame?.type === "pong")) return false;
    const text = entry.text.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

/** The frame without what would let somebody else in: a token is good for a week. */
export function masked(text: string): string {
  return text.replace(/("token"\s*:\s*")([^"]{8})[^"]{8,}(")/g, "$1$2…$3");
}
