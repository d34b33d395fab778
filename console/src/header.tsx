/** What is above everything: the name, who is logged in, language and theme. */

import type { Client } from "./client";
import { Icons } from "./icons";
import { type Theme, chooseLanguage, chooseTheme, language, text, theme } from "./preferences";
import { useStore } from "./store";
import type { Language } from "./words";

const THEMES: [Theme, () => preact.JSX.Element][] = [
  ["system", Icons.half],
  ["light", Icons.sun],
  ["dark", Icons.moon],
];
const LANGUAGES: [Language, string, string][] = [
  ["zh", "中文", "zh-CN"],
  ["en", "EN", "en"],
];

export function Header({ client }: { client: Client }) {
  const words = text();
  const account = useStore(client.account);
  return (
    <header class="bar">
      <div class="brand">
        <svg viewBox="0 0 32 20" width="32" height="20" aria-hidden="true">
          <path class="brand-wire" d="M1 10h6M25 10h6" />
          <rect class="brand-frame" x="7.75" y="2.75" width="16.5" height="14.5" rx="3" />
          <path class="brand-play" d="m14 6.5 5.5 3.5-5.5 3.5Z" />
        </svg>
        <h1>
          CineWire <span>{words.console}</span>
        </h1>
      </div>
      <a class="documents" href="docs">
        {words.documents}
      </a>
      {account !== null && (
        <div class="account">
          <span class="who" title={`${words.loggedInAs} ${account.openid ?? account.sessionId}`}>
            {account.openid ?? account.sessionId}
          </span>
          <button type="button" class="quiet" onClick={() => client.logOut()}>
            {words.logout}
          </button>
        </div>
      )}
      <div class="switches">
        <div class="segmented" role="group" aria-label={words.language}>
          {LANGUAGES.map(([one, name, tag]) => (
            <button type="button" key={one} lang={tag} aria-pressed={language.get() === one} onClick={() => chooseLanguage(one)}>
              {name}
            </button>
          ))}
        </div>
        <div class="segmented" role="group" aria-label={words.theme}>
          {THEMES.map(([one, Icon]) => (
            <button type="button" key={one} title={words.themes[one]} aria-label={words.themes[one]} aria-pressed={theme.get() === one} onClick={() => chooseTheme(one)}>
              <Icon />
            </button>
          ))}
        </div>
      </div>
    </header>
  );
}
