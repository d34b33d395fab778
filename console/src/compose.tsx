/** Any message of the protocol, from a form that the server's own document makes, or as raw JSON. */

import { useEffect, useState } from "preact/hooks";
import type { Client } from "./client";
import { FieldAsked } from "./field";
import { masked } from "./log";
import { text } from "./preferences";
import { type Problem, type Sendable, make, sendables, typedOf } from "./schema";
import { useStore } from "./store";
import type { Json } from "./wire";

/** Answers to the message that was sent last, the newest of them. */
const SHOWN = 6;

export function Compose({ client }: { client: Client }) {
  const words = text();
  const all = useSendables();
  const [type, setType] = useState("movies_search");
  const [isRaw, setRaw] = useState(false);
  const [typed, setTyped] = useState<{ [name: string]: string }>({});
  const [raw, setRawText] = useState("");
  const [sentId, setSentId] = useState<string | null>(null);
  const [said, setSaid] = useState("");
  const [tried, setTried] = useState(false);
  if (all === null || all === "failed") return <section class="compose" aria-label={words.message}>{all === "failed" && <p class="bad">{words.documentFailed}</p>}</section>;

  const chosen = all.find((one) => one.type === type) ?? all[0];
  if (chosen === undefined) return null;
  const { message, problems, onlyOne } = make(chosen, typed);
  const choose = (next: string): void => {
    setType(next);
    setTyped({});
    setTried(false);
    setSaid("");
  };
  const fill = (): void => setTyped(Object.fromEntries(Object.entries(chosen.example).map(([name, value]) => [name, typedOf(value as Json)])));
  const turn = (toRaw: boolean): void => {
    if (toRaw) setRawText(JSON.stringify(message, null, 2));
    setRaw(toRaw);
  };
  const send = (event: Event): void => {
    event.preventDefault();
    if (!isRaw && (!onlyOne || Object.keys(problems).length > 0)) {
      setTried(true);
      document.getElementById(`field-${Object.keys(problems)[0] ?? chosen.oneOf[0]}`)?.focus();
      return;
    }
    const id = typed["id"] || `form-${Math.random().toString(36).slice(2, 8)}`;
    if (isRaw) setSentId(idIn(raw));
    else setSentId(id);
    const went = client.sendText(isRaw ? raw : JSON.stringify({ ...message, id }));
    setSaid(went ? "" : words.notConnected);
  };
  // What is still empty is wrong only when somebody wanted to send it.
  const shown = (name: string): Problem | undefined => (tried || typed[name] ? problems[name] : undefined);
  return (
    <section class="compose" aria-label={words.message}>
      <p class="dim">{isRaw ? words.rawAbout : words.messageAbout}</p>
      <div class="segmented" role="group" aria-label={words.message}>
        <button type="button" aria-pressed={!isRaw} onClick={() => turn(false)}>
          {words.form}
        </button>
        <button type="button" aria-pressed={isRaw} onClick={() => turn(true)}>
          {words.raw}
        </button>
      </div>
      <form onSubmit={send} noValidate>
        {isRaw ? (
          <textarea class="mono raw" aria-label={words.raw} rows={12} spellcheck={false} value={raw} onInput={(event) => setRawText(event.currentTarget.value)} />
        ) : (
          <>
            <label class="type">
              <span>{words.messageType}</span>
              <TypeChoice all={all} type={chosen.type} onChosen={choose} />
            </label>
            <p class="about">
              {chosen.summary}
              {chosen.beforeLogin && <span class="label">{words.anyone}</span>}
            </p>
            {chosen.about !== "" && <p class="dim small">{chosen.about}</p>}
            {chosen.oneOf.length > 0 && <p class={onlyOne || !tried ? "dim small" : "bad small"}>{words.oneOf(chosen.oneOf.join(", "))}</p>}
            {chosen.fields
              .filter((field) => field.fixed === undefined)
              .map((field) => (
                <FieldAsked key={`${chosen.type}.${field.name}`} field={field} value={typed[field.name] ?? ""} problem={shown(field.name)} onTyped={(value) => setTyped({ ...typed, [field.name]: value })} />
              ))}
            <div class="preview">
              <h3>{words.preview}</h3>
              <pre tabIndex={0}>{JSON.stringify(message)}</pre>
            </div>
          </>
        )}
        <div class="row">
          <button type="submit" class="primary">
            {words.send}
          </button>
          {!isRaw && (
            <button type="button" onClick={fill}>
              {words.useExample}
            </button>
          )}
          <button type="button" class="quiet" onClick={() => (isRaw ? setRawText("") : setTyped({}))}>
            {words.reset}
          </button>
        </div>
        <p class="bad" role="status">
          {said}
        </p>
      </form>
      {sentId !== null && <Answers client={client} id={sentId} />}
    </section>
  );
}

function useSendables(): Sendable[] | null | "failed" {
  const [all, setAll] = useState<Sendable[] | null | "failed">(null);
  useEffect(() => {
    const read = async (): Promise<Sendable[]> => {
      const response = await fetch("asyncapi.json");
      if (!response.ok) throw new Error(String(response.status));
      return sendables((await response.json()) as { [key: string]: Json });
    };
    read().then(setAll, () => setAll("failed"));
  }, []);
  return all;
}

function TypeChoice({ all, type, onChosen }: { all: Sendable[]; type: string; onChosen: (type: string) => void }) {
  const groups = [...new Set(all.map((one) => one.group))];
  return (
    <select class="mono" value={type} onChange={(event) => onChosen(event.currentTarget.value)}>
      {groups.map((group) => (
        <optgroup key={group} label={group}>
          {all
            .filter((one) => one.group === group)
            .map((one) => (
              <option key={one.type} value={one.type}>
                {one.type}
              </option>
            ))}
        </optgroup>
      ))}
    </select>
  );
}

function Answers({ client, id }: { client: Client; id: string }) {
  const words = text();
  const entries = useStore(client.log.entries);
  const answers = entries.filter((entry) => entry.direction === "in" && entry.frame?.id === id);
  return (
    <div class="answers" role="log" aria-label={words.answersTo}>
      <h3>{words.answersTo}</h3>
      {answers.length === 0 && <p class="dim">{words.noAnswersYet}</p>}
      {answers.slice(-SHOWN).map((entry) => (
        <pre key={entry.number} tabIndex={0}>
          {JSON.stringify(JSON.parse(masked(entry.text)), null, 2)}
        </pre>
      ))}
    </div>
  );
}

function idIn(written: string): string | null {
  try {
    return (JSON.parse(written) as { id?: string }).id ?? null;
  } catch {
    return null;
  }
}
