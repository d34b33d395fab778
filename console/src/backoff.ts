/** When to come back after a socket closed, and whether to. Pure. */

const FIRST_MS = 500;
const LONGEST_MS = 30_000;
/** What the server calls too fast is no reason to come back at once. */
const FAST_SENDER_MS = 5_000;

/** After these the server wants something else first: a login, a repaired client, or that another page is closed. */
const STAY_AWAY = new Set([1008, 1009, 4001, 4002, 4003, 4008]);

/**
 * Milliseconds to wait before the next attempt, or null when this page shall not come back by itself.
 *
 * It doubles from half a second to half a minute, and half of it is chance, so that a node's clients do not come back
 * in step. What the server asked for is the least.
 */
export function wait(code: number, attempt: number, askedMs: number | null, chance = Math.random): number | null {
  if (STAY_AWAY.has(code)) return null;
  if (askedMs !== null) return askedMs;
  const whole = Math.max(Math.min(FIRST_MS * 2 ** attempt, LONGEST_MS), code === 4006 ? FAST_SENDER_MS : 0);
  return Math.round(whole / 2 + (whole / 2) * chance());
}
