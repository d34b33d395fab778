/** Numbers as people read them. */

/** `41 ms`, `1.8 s`, `2 min`. */
export function span(ms: number): string {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.round(ms / 60_000)} min`;
}

/** `14:03:07.512` in the time of the reader's own place. */
export function clock(atMs: number): string {
  const at = new Date(atMs);
  const two = (value: number) => String(value).padStart(2, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

export function size(bytes: number): string {
  return bytes < 10_000 ? `${bytes} B` : `${(bytes / 1024).toFixed(1)} KiB`;
}

/** `1–64`, `≤ 64`, `≥ 1`, or nothing without bounds. */
export function bounds(least: number | null, most: number | null): string {
  if (least !== null && most !== null) return `${least}–${most}`;
  if (most !== null) return `≤ ${most}`;
  return least === null ? "" : `≥ ${least}`;
}
