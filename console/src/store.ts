/** A value that components follow. */

import { useEffect, useState } from "preact/hooks";

export class Store<T> {
  private followers = new Set<() => void>();
  private telling: number | undefined;

  /** With a pace its followers are told of what changed at most once in so many milliseconds. */
  constructor(
    private value: T,
    private readonly paceMs = 0,
  ) {}

  get(): T {
    return this.value;
  }

  set(value: T): void {
    this.value = value;
    if (this.paceMs === 0) this.tell();
    else this.telling ??= setTimeout(() => this.tell(), this.paceMs);
  }

  update(change: (value: T) => T): void {
    this.set(change(this.value));
  }

  private tell(): void {
    this.telling = undefined;
    for (const follower of [...this.followers]) follower();
  }

  follow(follower: () => void): () => void {
    this.followers.add(follower);
    return () => this.followers.delete(follower);
  }
}

/** The store's value; the component is rendered again when it changes. */
export function useStore<T>(store: Store<T>): T {
  const [, render] = useState(0);
  useEffect(() => {
    const again = () => render((times) => times + 1);
    again(); // it may have changed between the rendering and here
    return store.follow(again);
  }, [store]);
  return store.get();
}

/** The time in epoch milliseconds, anew every `everyMs` while `running`. */
export function useNow(running: boolean, everyMs: number): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (!running) return;
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [running, everyMs]);
  return now;
}
