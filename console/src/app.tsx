/** How the page is put together. On a wide screen chat, message and frames stand beside each other; on a narrow one each is a view. */

import { useEffect, useState } from "preact/hooks";
import { Chat } from "./chat";
import type { Client } from "./client";
import { Compose } from "./compose";
import type { Conversation } from "./conversation";
import { Frames } from "./frames";
import { Header } from "./header";
import { LinkBar } from "./linkbar";
import { Login } from "./login";
import { language, text, theme } from "./preferences";
import { useStore } from "./store";

/** From here on the chat is always there, as `layout.css` has it. */
const DESK = "(min-width: 900px)";

type View = "chat" | "message" | "frames";

export function App({ client, conversation }: { client: Client; conversation: Conversation }) {
  useStore(language);
  useStore(theme);
  const words = text();
  const isIn = useStore(client.account) !== null;
  const [view, setView] = useState<View>("chat");
  const shown: View = useMatches(DESK) && view === "chat" ? "frames" : view;
  const { phase } = useStore(client.link);
  const views: [View, string][] = [
    ["chat", words.chat],
    ["frames", words.frames],
    ["message", words.message],
  ];
  return (
    <div class="page" data-view={view}>
      <a class="skip" href="#chat">
        {words.skip}
      </a>
      <Header client={client} />
      <nav class="views" aria-label={words.views}>
        {views.map(([one, name]) => (
          <button type="button" key={one} data-for={one} aria-current={shown === one ? "true" : undefined} onClick={() => setView(one)}>
            {name}
          </button>
        ))}
      </nav>
      {isIn ? (
        <Chat client={client} conversation={conversation} />
      ) : (
        <main id="chat" class="chat" tabIndex={-1}>
          {phase !== "idle" && <LinkBar client={client} />}
          <Login client={client} />
        </main>
      )}
      <aside class="inspector" aria-label={`${words.frames}, ${words.message}`}>
        <Frames client={client} />
        <Compose client={client} />
      </aside>
    </div>
  );
}

function useMatches(query: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const changed = (): void => setMatches(media.matches);
    media.addEventListener("change", changed);
    return () => media.removeEventListener("change", changed);
  }, [query]);
  return matches;
}
