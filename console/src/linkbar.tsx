/** The state of the connection, and the button that cuts it on purpose. */

import { useState } from "preact/hooks";
import type { Client } from "./client";
import { span } from "./format";
import { Icons } from "./icons";
import { text } from "./preferences";
import { useNow, useStore } from "./store";

const RETURNS_S = [1, 3, 10];

export function LinkBar({ client }: { client: Client }) {
  const words = text();
  const link = useStore(client.link);
  const [backAfter, setBackAfter] = useState<number | null>(3);
  const isAway = link.phase === "cut" || link.phase === "waiting" || link.phase === "closed";
  const now = useNow(isAway, 100);
  return (
    <section class={`linkbar ${link.phase}`} aria-label={words.connection}>
      <div class="state">
        <span class="lamp" aria-hidden="true" />
        <strong role="status">{words.phases[link.phase]}</strong>
        {link.phase === "open" && link.server !== null && <code title="connection_id">{link.server.connection_id}</code>}
        {link.phase === "open" && link.roundTripMs !== null && (
          <span class="dim" title={words.roundTrip}>
            <span class="number">{span(link.roundTripMs)}</span>
          </span>
        )}
        {isAway && link.closed !== null && <span class="dim">{words.closedWith(link.closed.code, link.closed.reason)}</span>}
        {isAway && link.phase !== "closed" && (
          <span class="number dim">{link.until === null ? words.away(span(Math.max(now - link.since, 100))) : words.backIn(span(Math.max(link.until - now, 100)))}</span>
        )}
      </div>
      {link.phase === "open" ? (
        <div class="row">
          <button type="button" class="cut" title={words.cutTitle} onClick={() => client.cut(backAfter === null ? null : backAfter * 1000)}>
            <Icons.cut />
            <span>{words.cut}</span>
          </button>
          <select aria-label={words.cutFor} value={String(backAfter)} onChange={(event) => setBackAfter(event.currentTarget.value === "null" ? null : Number(event.currentTarget.value))}>
            <option value="null">{words.byHand}</option>
            {RETURNS_S.map((seconds) => (
              <option key={seconds} value={String(seconds)}>
                {words.seconds(seconds)}
              </option>
            ))}
          </select>
        </div>
      ) : (
        <button type="button" class="primary" disabled={link.phase === "opening"} onClick={() => client.connect()}>
          <Icons.link />
          <span>{words.comeBack}</span>
        </button>
      )}
      {link.phase === "cut" && <p class="dim">{words.cutAbout}</p>}
    </section>
  );
}
