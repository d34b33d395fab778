/** The turns of the standing conversation, what the films of its answers are, and what was thought of them. */

import { type Client, Refusal } from "./client";
import { Store } from "./store";
import { type Frame, type Message, type MovieCard, type StoredMessage, as } from "./wire";

/** Messages that are shown of what was said before this page was there. */
const HISTORY = 30;

export interface Turn {
  question: string;
  /** The answer as it is being made, or was on this page. */
  run: string | null;
  /** The answer as it is stored. */
  stored: StoredMessage | null;
}

export interface Opinion {
  rating: number;
  comment: string;
  state: "sending" | "kept" | "failed";
}

export interface Wish {
  debug: boolean;
  incognito: boolean;
  watchlist_auto_capture: boolean;
}

export class Conversation {
  readonly turns = new Store<readonly Turn[]>([]);
  /** Answers beside each other, by the id of each of them; the oldest first. */
  readonly siblings = new Store<ReadonlyMap<string, string[]>>(new Map());
  readonly films = new Store<ReadonlyMap<number, MovieCard | null>>(new Map());
  readonly opinions = new Store<ReadonlyMap<string, Opinion>>(new Map());
  readonly refused = new Store<Frame | null>(null);

  /** What was said before is there. A question that came earlier would be lost among it, or stand there twice. */
  private loaded = Promise.resolve();
  /** A connection that broke meanwhile leaves it false: then the next login loads again. */
  private wasLoaded = false;

  constructor(private readonly client: Client) {
    client.onLogin = (account, before) => {
      const isSame = before !== null && before.openid === account.openid;
      if (isSame && (this.wasLoaded || this.turns.get().length > 0)) return;
      this.turns.set([]);
      this.wasLoaded = false;
      this.loaded = this.load();
    };
    client.onEnd = (run) => {
      if (run.request.type === "regenerate") void (run.phase === "complete" ? this.loadSiblings() : this.restore(run.error));
    };
  }

  async ask(query: string, wish: Wish): Promise<void> {
    await this.loaded;
    const set = Object.fromEntries(Object.entries(wish).filter(([, on]) => on));
    const run = this.client.follow({ type: "chat", query, ...set });
    this.turns.update((turns) => [...turns, { question: query, run, stored: null }]);
  }

  /** Have the question of this turn answered again; what followed it is kept beside the new answer. */
  again(turn: Turn, messageId: string): void {
    const run = this.client.follow({ type: "regenerate", message_id: messageId });
    this.turns.update((turns) => [...turns.slice(0, turns.indexOf(turn)), { question: turn.question, run, stored: null }]);
  }

  async choose(messageId: string): Promise<void> {
    await this.attempt(async () => {
      await this.client.ask({ type: "branch_choose", message_id: messageId });
      await this.load();
    });
  }

  async rate(messageId: string, rating: number, comment: string): Promise<void> {
    const say = (state: Opinion["state"]) => this.opinions.update((known) => new Map(known).set(messageId, { rating, comment, state }));
    say("sending");
    const message: Message = { type: "feedback", message_id: messageId, rating };
    try {
      await this.client.ask(comment === "" ? message : { ...message, comment });
      say("kept");
    } catch {
      say("failed");
    }
  }

  /** Cards of films that are not known yet. What is missing is known as null. */
  async look(ids: readonly number[]): Promise<void> {
    const unknown = ids.filter((id) => !this.films.get().has(id));
    if (unknown.length === 0) return;
    await this.attempt(async () => {
      const frame = await this.client.ask({ type: "movies_bulk", ids: unknown });
      const found = as<{ items: MovieCard[]; missing_ids: number[] }>(frame.data);
      const news: [number, MovieCard | null][] = [
        ...found.items.map((card): [number, MovieCard] => [card.tmdb_id, card]),
        ...found.missing_ids.map((id): [number, null] => [id, null]),
      ];
      this.films.update((films) => new Map([...films, ...news]));
    });
  }

  private async load(): Promise<void> {
    await this.attempt(async () => {
      const items = await this.history();
      this.turns.set(this.turnsOf(items));
      this.wasLoaded = true;
      const unfinished = this.client.unfinished();
      for (const [requestId, request] of Object.entries(unfinished)) this.rejoin(requestId, request, items);
    });
  }

  /** No other answer came: what was there before is still what counts. */
  private async restore(why: Frame | null): Promise<void> {
    await this.load();
    this.refused.set(why);
  }

  private async loadSiblings(): Promise<void> {
    await this.attempt(async () => void (await this.history()));
  }

  private async history(): Promise<StoredMessage[]> {
    const frame = await this.client.ask({ type: "history", limit: HISTORY });
    const items = as<{ items: StoredMessage[] }>(frame.data).items;
    this.siblings.set(new Map(items.filter((item) => item.siblings !== undefined).map((item) => [item.id, item.siblings ?? []])));
    return items;
  }

  private turnsOf(items: readonly StoredMessage[]): Turn[] {
    const runs = [...this.client.runs.get().values()];
    const turns: Turn[] = [];
    for (const item of items) {
      const run = runs.find((one) => one.requestId !== null && one.requestId === item.request_id)?.key ?? null;
      if (item.role === "user") turns.push({ question: item.content, run, stored: null });
      else turns.splice(-1, 1, { question: turns.at(-1)?.question ?? "", run, stored: item });
    }
    return turns;
  }

  /** An answer that was being made when this page was reloaded. */
  private rejoin(requestId: string, request: Message, items: readonly StoredMessage[]): void {
    const known = [...this.client.runs.get().values()].some((run) => run.requestId === requestId);
    const stored = items.some((item) => item.role === "assistant" && item.request_id === requestId);
    if (known || stored) return;
    const run = this.client.rejoin(requestId, request);
    this.turns.update((turns) => {
      const asked = turns.at(-1);
      if (asked !== undefined && asked.stored === null) return [...turns.slice(0, -1), { ...asked, run }];
      return [...turns, { question: String(request["query"] ?? asked?.question ?? ""), run, stored: null }];
    });
  }

  private async attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
      this.refused.set(null);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.frame.type !== "offline") this.refused.set(error.frame);
    }
  }
}
