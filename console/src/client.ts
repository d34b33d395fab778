/**
 * What this page does over its socket: logs in, asks, follows answers, and takes both up again after each reconnect.
 *
 * The connection itself is `socket.ts`; what a frame changes in an answer is `runs.ts`; which turns a conversation has
 * is `conversation.ts`.
 */

import { type Account, forget, keep, token } from "./account";
import { Log } from "./log";
import { type Run, accepted, asked, isOver, left, resumed, skips, took } from "./runs";
import { type Link, Socket } from "./socket";
import { Store } from "./store";
import { type Frame, type LoggedIn, type Message, as } from "./wire";

/** Longer than the server's own deadline for anything that is not streamed. */
const ANSWER_WITHIN_MS = 20_000;
/** Browsers count a timer's milliseconds in 31 bits and fire at once when they are more. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** A page that is drawn for each frame is behind them when they come in hundreds, as at a return. */
const PACE_MS = 30;
/** Answers that were being followed when the page was reloaded. */
const UNFINISHED = "cinewire.unfinished";

/** Why a message was not answered with what it asked for. */
export class Refusal extends Error {
  constructor(readonly frame: Frame) {
    super(frame.message ?? frame.type);
  }
}

interface Waiting {
  resolve(frame: Frame): void;
  reject(refusal: Refusal): void;
}

export class Client {
  readonly log = new Log();
  readonly link: Store<Link>;
  readonly account = new Store<Account | null>(null);
  /** Why nobody is logged in any more, or the last login failed. */
  readonly loginError = new Store<Frame | null>(null);
  readonly runs = new Store<ReadonlyMap<string, Run>>(new Map(), PACE_MS);
  readonly loggingIn = new Store(token() !== null);
  /** Called with each login: what was there before may be somebody else's. */
  onLogin: (account: Account, before: Account | null) => void = () => undefined;
  /** Called when an answer is complete, or will not come. */
  onEnd: (run: Run) => void = () => undefined;

  private readonly socket: Socket;
  private readonly waiting = new Map<string, Waiting>();
  /** Of `resume` messages: which run they are about. */
  private readonly resuming = new Map<string, string>();
  private readonly page = Math.random().toString(36).slice(2, 8);
  private count = 0;
  private code: string | null = null;
  /** A token is exchanged for a fresh one at half of its life. */
  private refresh: number | undefined;

  constructor(address: string) {
    this.socket = new Socket(address, {
      changed: (link) => this.linkChanged(link),
      sent: (text) => this.log.add("out", text),
      received: (text, frame) => this.received(text, frame),
    });
    this.link = new Store(this.socket.link);
    if (token() !== null) this.connect();
  }

  connect(): void {
    this.socket.open();
  }

  cut(awayMs: number | null): void {
    this.socket.cut(awayMs);
  }

  logIn(code: string): void {
    this.code = code;
    this.loginError.set(null);
    this.loggingIn.set(true);
    if (this.socket.link.phase === "open") this.introduce();
    else this.connect();
  }

  logOut(): void {
    void this.ask({ type: "logout" })
      .catch(() => undefined)
      .finally(() => this.cut(null));
    this.leave(null);
  }

  /** The text as it is, which need not be a message. */
  sendText(text: string): boolean {
    return this.socket.sendText(text);
  }

  /** Send a message and give the first frame that answers it. Rejects with a Refusal. */
  ask(message: Message): Promise<Frame> {
    const id = message.id ?? this.nextId("m");
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => answer(reject)(new Refusal({ type: "timeout" })), ANSWER_WITHIN_MS);
      const answer =
        <T>(act: (given: T) => void) =>
        (given: T): void => {
          clearTimeout(timer);
          this.waiting.delete(id);
          act(given);
        };
      this.waiting.set(id, { resolve: answer(resolve), reject: answer(reject) });
      if (!this.socket.send({ ...message, id })) this.waiting.get(id)?.reject(new Refusal({ type: "offline" }));
    });
  }

  /** Ask something whose answer is followed; the key of its run. Offline it is asked after the reconnect. */
  follow(message: Message): string {
    const key = this.nextId("q");
    const request = { ...message, id: key, stream: true };
    this.put(asked(key, request, Date.now()));
    this.socket.send(request);
    return key;
  }

  /** Follow an answer that was asked for before this page was there. */
  rejoin(requestId: string, request: Message): string {
    const key = this.nextId("q");
    this.put(accepted(asked(key, { ...request, id: key }, Date.now()), requestId));
    this.resume(key);
    return key;
  }

  cancel(run: Run): void {
    const named: Message = run.requestId === null ? { type: "cancel", chat_id: run.key } : { type: "cancel", request_id: run.requestId };
    void this.ask(named).catch(() => undefined);
  }

  /** The answers that were unfinished when the page was left, by their `request_id`. */
  unfinished(): Record<string, Message> {
    return JSON.parse(sessionStorage.getItem(UNFINISHED) ?? "{}") as Record<string, Message>;
  }

  private nextId(letter: string): string {
    this.count += 1;
    return `${letter}${this.count}-${this.page}`;
  }

  // ---- the connection ----

  private linkChanged(link: Link): void {
    const before = this.link.get();
    this.link.set(link);
    if (link.phase === before.phase) return;
    if (before.phase === "open") this.lost();
    this.log.add("event", JSON.stringify({ event: link.phase, ...link.closed, ...(link.until && { wait_ms: link.until - link.since }) }), null);
    if (link.phase === "closed") {
      this.loggingIn.set(false);
      if (link.closed?.code === 4003 && this.account.get() !== null) this.leave({ type: "error", reason: "session_revoked" });
    }
  }

  private lost(): void {
    for (const waiting of [...this.waiting.values()]) waiting.reject(new Refusal({ type: "offline" }));
    this.resuming.clear();
    for (const run of this.runs.get().values()) this.put(left(run, Date.now()));
  }

  private introduce(): void {
    const known = token();
    if (this.code !== null) this.socket.send({ type: "login", id: this.nextId("l"), code: this.code });
    else if (known !== null) this.socket.send({ type: "auth", id: this.nextId("l"), token: known });
  }

  // ---- frames ----

  private received(text: string, frame: Frame | null): void {
    this.log.add("in", text, frame);
    if (frame === null) return;
    if (frame.type === "connected") this.introduce();
    if (frame.type === "login_response" || frame.type === "auth_response") this.introduced(frame);
    this.answered(frame);
    this.followed(frame);
  }

  private introduced(frame: Frame): void {
    this.code = null;
    this.loggingIn.set(false);
    if (frame.code !== 0) {
      if (frame.retryable !== true) this.leave(frame);
      else this.loginError.set(frame);
      return;
    }
    const before = this.account.get();
    const login = as<LoggedIn>(frame.data);
    const account = keep(login);
    clearTimeout(this.refresh);
    this.refresh = setTimeout(() => this.introduce(), Math.min(login.expires_in * 500, LONGEST_TIMER_MS));
    this.loginError.set(null);
    this.account.set(account);
    if (before !== null && before.openid !== account.openid) this.runs.set(new Map());
    this.onLogin(account, before);
    for (const run of this.runs.get().values()) this.takeUp(run);
  }

  private leave(why: Frame | null): void {
    forget();
    sessionStorage.removeItem(UNFINISHED);
    this.account.set(null);
    this.runs.set(new Map());
    this.loginError.set(why);
  }

  private answered(frame: Frame): void {
    const waiting = frame.id === undefined ? undefined : this.waiting.get(frame.id);
    if (waiting === undefined) return;
    if (frame.code === 0) waiting.resolve(frame);
    else waiting.reject(new Refusal(frame));
  }

  // ---- answers ----

  /** After a reconnect: where it left off, or, when nobody knows whether the question arrived, the question again. */
  private takeUp(run: Run): void {
    if (isOver(run)) return;
    if (run.requestId === null) this.socket.send(run.request);
    else this.resume(run.key);
  }

  private resume(key: string): void {
    const run = this.runs.get().get(key);
    if (run?.requestId == null) return;
    const id = this.nextId("r");
    this.resuming.set(id, key);
    this.socket.send({ type: "resume", id, request_id: run.requestId, after_seq: run.lastSeq });
  }

  private followed(frame: Frame): void {
    const now = Date.now();
    const run = this.runOf(frame);
    if (run === undefined) return;
    if (frame.type === `${run.request.type}_processing`) this.put(accepted(run, as<{ request_id: string }>(frame.data).request_id));
    else if (frame.type === "resume_response") this.put(resumed(run, frame, now));
    else if (skips(run, frame)) this.resume(run.key);
    else if (frame.type === "error" && frame.seq === undefined && frame.retryable === true && run.requestId !== null) return;
    else this.put(took(run, frame, now));
    const after = this.runs.get().get(run.key);
    if (after !== undefined && isOver(after) && !isOver(run)) this.onEnd(after);
  }

  private runOf(frame: Frame): Run | undefined {
    const runs = this.runs.get();
    const key = frame.id === undefined ? undefined : (this.resuming.get(frame.id) ?? frame.id);
    const named = key === undefined ? undefined : runs.get(key);
    if (named !== undefined || frame.request_id === undefined) return named;
    return [...runs.values()].find((run) => run.requestId === frame.request_id);
  }

  private put(run: Run): void {
    const known = this.runs.get();
    if (known.get(run.key) === run) return;
    this.runs.set(new Map(known).set(run.key, run));
    const unfinished = [...this.runs.get().values()].flatMap((one) => (isOver(one) || one.requestId === null ? [] : [[one.requestId, one.request]]));
    sessionStorage.setItem(UNFINISHED, JSON.stringify(Object.fromEntries(unfinished)));
  }
}
