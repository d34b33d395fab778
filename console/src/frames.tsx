/** Every frame both ways with its time and size; filtered, opened, copied. */

import { useMemo, useRef, useState } from "preact/hooks";
import type { Client } from "./client";
import { Copy } from "./copy";
import { clock, size } from "./format";
import { Icons } from "./icons";
import { type Entry, type Filter, filtered, masked } from "./log";
import { text } from "./preferences";
import { useStick } from "./stick";
import { useStore } from "./store";
import { frameOf } from "./wire";

export function Frames({ client }: { client: Client }) {
  const words = text();
  const entries = useStore(client.log.entries);
  const [filter, setFilter] = useState<Filter>({ words: "", direction: "all", heartbeat: false });
  const [showsTokens, setShowsTokens] = useState(false);
  const [follows, setFollows] = useState(true);
  const list = useRef<HTMLOListElement>(null);
  const shown = filtered(entries, filter);
  useStick(list, () => follows, [entries, follows]);
  const late = useLate(client);
  const seen = (entry: Entry): string => (showsTokens ? entry.text : masked(entry.text));
  return (
    <section class="frames" aria-label={words.frames}>
      <div class="tools">
        <input type="search" aria-label={words.filter} placeholder={words.filterPlaceholder} value={filter.words} onInput={(event) => setFilter({ ...filter, words: event.currentTarget.value })} />
        <div class="segmented" role="group" aria-label={words.filter}>
          {(["all", "in", "out"] as const).map((direction) => (
            <button type="button" key={direction} aria-pressed={filter.direction === direction} onClick={() => setFilter({ ...filter, direction })}>
              {words.directions[direction]}
            </button>
          ))}
        </div>
        <Check label={words.heartbeat} on={filter.heartbeat} set={(heartbeat) => setFilter({ ...filter, heartbeat })} />
        <Check label={words.tokens} on={showsTokens} set={setShowsTokens} />
        <Check label={words.follow} on={follows} set={setFollows} />
      </div>
      <ol ref={list} tabIndex={0} aria-label={words.frames}>
        {shown.map((entry) => (
          <Row key={entry.number} entry={entry} seen={seen(entry)} isLate={late(entry)} language={words.title} />
        ))}
        {shown.length === 0 && <li class="empty dim">{entries.length === 0 ? words.noFramesYet : words.noFrames}</li>}
      </ol>
      <div class="tools">
        <span class="dim number" role="status">
          {words.shown(shown.length, entries.length)}
        </span>
        <Copy wide label={words.copyAll} what={() => shown.map((entry) => `${clock(entry.at)} ${MARKS[entry.direction]} ${seen(entry)}`).join("\n")} />
        <button type="button" class="quiet" onClick={() => client.log.clear()}>
          {words.clear}
        </button>
      </div>
    </section>
  );
}

const MARKS = { in: "<", out: ">", event: "-" };

function Check({ label, on, set }: { label: string; on: boolean; set: (on: boolean) => void }) {
  return (
    <label class="check">
      <input type="checkbox" checked={on} onChange={(event) => set(event.currentTarget.checked)} /> {label}
    </label>
  );
}

/** Tells whether a frame came late, after it had been missed. */
function useLate(client: Client): (entry: Entry) => boolean {
  const runs = useStore(client.runs);
  const missed = new Map([...runs.values()].map((run) => [run.requestId, run.stretches.filter((one) => one.way === "replayed")]));
  return ({ frame }) => {
    const { request_id: requestId, seq } = frame ?? {};
    if (requestId === undefined || seq === undefined) return false;
    return missed.get(requestId)?.some((one) => one.from <= seq && seq <= one.to) ?? false;
  };
}

/** A row is drawn once, and again when something of it changes: there are up to a thousand. */
function Row({ entry, seen, isLate, language }: { entry: Entry; seen: string; isLate: boolean; language: string }) {
  return useMemo(() => <Shown entry={entry} seen={seen} isLate={isLate} />, [entry, seen, isLate, language]);
}

function Shown({ entry, seen, isLate }: { entry: Entry; seen: string; isLate: boolean }) {
  const words = text();
  const [isOpen, setOpen] = useState(false);
  const { frame, direction } = entry;
  const kind = direction === "event" ? words.event : (frame?.type ?? "?");
  const isError = direction === "in" && (frame?.type === "error" || (frame?.code ?? 0) !== 0);
  const Mark = direction === "in" ? Icons.down : direction === "out" ? Icons.up : Icons.dot;
  return (
    <li class={`frame ${direction}${isError ? " wrong" : ""}`}>
      <button type="button" class="line" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
        <span class="way">
          <Mark />
          <span class="unseen">{direction === "in" ? words.received : direction === "out" ? words.sent : words.event}</span>
        </span>
        <time class="number">{clock(entry.at)}</time>
        <strong>{kind}</strong>
        {frame?.seq !== undefined && <span class={isLate ? "seq late number" : "seq number"} title={isLate ? words.replayed : undefined}>{frame.seq}</span>}
        <span class="peek">{gist(seen)}</span>
        {direction !== "event" && <span class="bytes number">{size(entry.sizeBytes)}</span>}
      </button>
      {isOpen && (
        <div class="opened">
          <pre tabIndex={0}>{pretty(seen)}</pre>
          <Copy what={() => seen} />
        </div>
      )}
    </li>
  );
}

/** What is different from frame to frame, to read in passing. */
function gist(written: string): string {
  const said = frameOf(written);
  if (said === null) return written;
  const { type, seq, request_id, id, ...rest } = said;
  return JSON.stringify(rest).slice(1, -1);
}

function pretty(written: string): string {
  try {
    return JSON.stringify(JSON.parse(written), null, 2);
  } catch {
    return written;
  }
}
