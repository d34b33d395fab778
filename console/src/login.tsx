/** The first thing that is asked: a login code. */

import { useState } from "preact/hooks";
import type { Client } from "./client";
import { text } from "./preferences";
import { useStore } from "./store";

export function Login({ client }: { client: Client }) {
  const words = text();
  const error = useStore(client.loginError);
  const busy = useStore(client.loggingIn);
  const { phase } = useStore(client.link);
  const [code, setCode] = useState(() => `dev-${Math.random().toString(36).slice(2, 8)}`);
  const submit = (event: Event): void => {
    event.preventDefault();
    if (code.trim() !== "") client.logIn(code);
  };
  return (
    <section class="login" aria-labelledby="login-title">
      <Strip />
      <h2 id="login-title">{words.loginTitle}</h2>
      <p>{words.loginAbout}</p>
      <form onSubmit={submit}>
        <label for="code">{words.loginCode}</label>
        <div class="row">
          <input id="code" name="code" class="mono" autocomplete="off" spellcheck={false} maxLength={256} required value={code} aria-describedby="code-hint" onInput={(event) => setCode(event.currentTarget.value)} />
          <button type="submit" class="primary" disabled={busy}>
            {busy ? words.loggingIn : words.login}
          </button>
        </div>
        <p class="hint" id="code-hint">
          {words.loginHint}
        </p>
        {phase === "idle" && (
          <button type="button" class="quiet bare" onClick={() => client.connect()}>
            {words.connect}
          </button>
        )}
        {error !== null && (
          <p class="bad" role="alert">
            {error.message ?? ""} {error.reason !== undefined && <code>{error.reason}</code>}
          </p>
        )}
      </form>
    </section>
  );
}

/** A strip of frames of which some came late: what this page is about. */
function Strip() {
  const cells = Array.from({ length: 24 }, (_, at) => at);
  return (
    <svg class="strip" viewBox="0 0 240 26" aria-hidden="true" preserveAspectRatio="none">
      {cells.map((at) => (
        <rect key={at} class={at < 9 ? "live" : at < 15 ? "replayed" : "live"} x={at * 10 + 1} y="3" width="8" height="20" rx="1.5" />
      ))}
    </svg>
  );
}
