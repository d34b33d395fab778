/**
 * One connection to the server that comes back by itself: opening, heartbeat, back-off, and being cut on purpose.
 *
 * It does not know who is logged in or what is being answered; `client.ts` takes that up again when it is told of
 * `connected`.
 */

import { wait } from "./backoff";
import { type Frame, type Message, type ServerFacts, frameOf } from "./wire";

/** A frame must come within this after a ping; two round trips over a bad mobile network take about half of it. */
const PONG_WITHIN_MS = 10_000;
/** Until a socket opens and says `connected`. */
const OPEN_WITHIN_MS = 10_000;

/** A connection that lasted as long was a good one: the next attempt is a first one again. */
const STEADY_MS = 10_000;

export type Phase =
  | "idle" /** nobody asked for it yet */
  | "opening"
  | "open"
  | "waiting" /** for the next attempt, at `until` */
  | "cut" /** on purpose; back at `until`, or by hand when that is null */
  | "closed"; /** does not come back by itself */

export interface Link {
  phase: Phase;
  /** Epoch milliseconds at which this phase began. */
  since: number;
  until: number | null;
  server: ServerFacts | null;
  /** The last ping's way there and back. */
  roundTripMs: number | null;
  closed: { code: number; reason: string } | null;
}

/** What the owner of a socket hears of it. */
export interface Ears {
  changed(link: Link): void;
  sent(text: string): void;
  /** `frame` is null for what is no frame. */
  received(text: string, frame: Frame | null): void;
}

export class Socket {
  link: Link = { phase: "idle", since: Date.now(), until: null, server: null, roundTripMs: null, closed: null };

  private socket: WebSocket | null = null;
  private attempt = 0;
  private askedMs: number | null = null;
  private retry: number | undefined;
  private deadline: number | undefined;
  private heartbeat: number | undefined;
  private pings = 0;
  private pingedAt: number | null = null;

  constructor(
    private readonly address: string,
    private readonly ears: Ears,
  ) {
    addEventListener("online", () => {
      if (this.link.phase === "waiting") this.open();
    });
  }

  /** Connect now, unless it is connected or about to be. */
  open(): void {
    if (this.socket !== null) return;
    clearTimeout(this.retry);
    this.become("opening", { closed: null });
    const socket = new WebSocket(this.address);
    this.socket = socket;
    // A socket that was given up may still have something to say: nobody listens any more.
    const ours = (act: (event: MessageEvent & CloseEvent) => void) => (event: Event) => {
      if (this.socket === socket) act(event as MessageEvent & CloseEvent);
    };
    socket.addEventListener("message", ours((event) => this.heard(String(event.data))));
    socket.addEventListener("close", ours((event) => this.ended(event.code, event.reason)));
    this.deadline = setTimeout(() => this.giveUp("no connection in time"), OPEN_WITHIN_MS);
  }

  /** Drop the connection as a suspended page would; come back after `awayMs`, or by `open` when that is null. */
  cut(awayMs: number | null): void {
    this.drop();
    this.become("cut", { until: awayMs === null ? null : Date.now() + awayMs });
    if (awayMs !== null) this.retry = setTimeout(() => this.open(), awayMs);
  }

  /** Whether it was sent; when it was not, nothing is kept for later. */
  send(message: Message): boolean {
    return this.sendText(JSON.stringify(message));
  }

  sendText(text: string): boolean {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(text);
    this.ears.sent(text);
    return true;
  }

  private heard(text: string): void {
    const frame = frameOf(text);
    clearTimeout(this.deadline);
    if (frame?.type === "connected" && frame.server !== undefined) this.greeted(frame.server);
    if (frame?.type === "pong" && frame.id === this.pingId && this.pingedAt !== null) {
      this.become(this.link.phase, { roundTripMs: performance.now() - this.pingedAt }, this.link.since);
      this.pingedAt = null;
    }
    // A node that has no room says so before it says `connected`; other errors are about messages.
    const isAboutReturn = frame?.type === "goodbye" || (frame?.type === "error" && this.link.phase === "opening");
    if (isAboutReturn) this.askedMs = frame.retry_after_ms ?? null;
    this.ears.received(text, frame);
  }

  private greeted(server: ServerFacts): void {
    this.askedMs = null;
    this.become("open", { server });
    clearInterval(this.heartbeat);
    this.heartbeat = setInterval(() => this.ping(), server.ping_interval_s * 1000);
    this.ping();
  }

  private ping(): void {
    this.pings += 1;
    this.pingedAt = performance.now();
    this.send({ type: "ping", id: this.pingId });
    clearTimeout(this.deadline);
    this.deadline = setTimeout(() => this.giveUp("silent"), PONG_WITHIN_MS);
  }

  private get pingId(): string {
    return `ping-${this.pings}`;
  }

  private giveUp(why: string): void {
    this.drop();
    this.ended(1006, why);
  }

  private ended(code: number, reason: string): void {
    this.drop();
    if (this.link.phase === "open" && Date.now() - this.link.since > STEADY_MS) this.attempt = 0;
    const waitMs = wait(code, this.attempt, code === 1012 || code === 1013 ? this.askedMs : null);
    this.attempt += 1;
    if (waitMs === null) {
      this.become("closed", { closed: { code, reason } });
      return;
    }
    this.become("waiting", { closed: { code, reason }, until: Date.now() + waitMs });
    this.retry = setTimeout(() => this.open(), waitMs);
  }

  private drop(): void {
    const socket = this.socket;
    this.socket = null;
    clearTimeout(this.retry);
    clearTimeout(this.deadline);
    clearInterval(this.heartbeat);
    this.pingedAt = null;
    socket?.close();
  }

  private become(phase: Phase, more: Partial<Link>, since = Date.now()): void {
    this.link = { ...this.link, until: null, ...more, phase, since };
    this.ears.changed(this.link);
  }
}
