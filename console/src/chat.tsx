/** The conversation, and where questions are typed. */

import { useEffect, useRef, useState } from "preact/hooks";
import { TurnShown } from "./answer";
import type { Client } from "./client";
import type { Conversation, Wish } from "./conversation";
import { Icons } from "./icons";
import { LinkBar } from "./linkbar";
import { text } from "./preferences";
import { useStick } from "./stick";
import { useStore } from "./store";

/** Nearer to the end than this, and the page stays at the end while an answer grows. */
const NEAR_PX = 120;

export function Chat({ client, conversation }: { client: Client; conversation: Conversation }) {
  const words = text();
  const turns = useStore(conversation.turns);
  const refused = useStore(conversation.refused);
  const runs = useStore(client.runs);
  const scroller = useRef<HTMLDivElement>(null);
  const stays = useRef(true);
  useStick(scroller, () => stays.current, [turns, runs, useStore(conversation.films)]);
  const scrolled = (): void => {
    const box = scroller.current;
    if (box !== null && box.clientHeight > 0) stays.current = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PX;
  };
  const ask = (query: string, wish: Wish): void => {
    stays.current = true;
    void conversation.ask(query, wish);
  };
  return (
    <main id="chat" class="chat" aria-label={words.chat} tabIndex={-1}>
      <LinkBar client={client} />
      <div class="turns" ref={scroller} onScroll={scrolled} role="log" aria-label={words.answers} aria-live="polite" tabIndex={0}>
        {turns.length === 0 && (
          <div class="welcome">
            <p>{words.welcome}</p>
            {words.suggestions.map((suggestion) => (
              <button type="button" key={suggestion} onClick={() => ask(suggestion, NOTHING)}>
                {suggestion}
              </button>
            ))}
          </div>
        )}
        {turns.map((turn, at) => (
          <TurnShown key={turn.run ?? turn.stored?.id ?? at} client={client} conversation={conversation} turn={turn} />
        ))}
      </div>
      {refused !== null && (
        <p class="bad strip-of-text" role="alert">
          {words.refused}: {refused.message} <code>{refused.reason ?? refused.type}</code>
        </p>
      )}
      <Ask onAsk={ask} />
    </main>
  );
}

const NOTHING: Wish = { debug: false, incognito: false, watchlist_auto_capture: false };

function Ask({ onAsk }: { onAsk: (query: string, wish: Wish) => void }) {
  const words = text();
  const [query, setQuery] = useState("");
  const [wish, setWish] = useState(NOTHING);
  const box = useRef<HTMLTextAreaElement>(null);
  useEffect(() => box.current?.focus(), []);
  const submit = (event: Event): void => {
    event.preventDefault();
    if (query.trim() === "") return;
    onAsk(query, wish);
    setQuery("");
  };
  const typed = (event: KeyboardEvent): void => {
    // While a Chinese input method is composing, Enter chooses what it offers.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  const options: [keyof Wish, string][] = [
    ["debug", words.debug],
    ["incognito", words.incognito],
    ["watchlist_auto_capture", words.capture],
  ];
  return (
    <form class="ask" onSubmit={submit}>
      <div class="row">
        <textarea ref={box} id="query" rows={2} maxLength={8000} aria-label={words.ask} placeholder={words.askPlaceholder} aria-describedby="ask-hint" value={query} onInput={(event) => setQuery(event.currentTarget.value)} onKeyDown={typed} />
        <button type="submit" class="primary" disabled={query.trim() === ""}>
          <Icons.up />
          <span>{words.ask}</span>
        </button>
      </div>
      <div class="below">
        <details>
          <summary>{words.options}</summary>
          {options.map(([name, label]) => (
            <label key={name}>
              <input type="checkbox" checked={wish[name]} onChange={(event) => setWish({ ...wish, [name]: event.currentTarget.checked })} /> {label}
            </label>
          ))}
        </details>
        <span class="hint" id="ask-hint">
          {words.askHint}
        </span>
      </div>
    </form>
  );
}
