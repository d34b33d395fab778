/** A button that copies a text and says that it did. */

import { useState } from "preact/hooks";
import { Icons } from "./icons";
import { text } from "./preferences";

const SAID_MS = 1500;

/** Browsers have a clipboard only where they trust the address, which they do not when it is `http://192.168…`. */
async function write(copied: string): Promise<void> {
  if (isSecureContext) await navigator.clipboard.writeText(copied).catch(() => writeByHand(copied));
  else writeByHand(copied);
}

function writeByHand(copied: string): void {
  const area = document.createElement("textarea");
  area.value = copied;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function Copy({ what, label, wide = false }: { what: () => string; label?: string; wide?: boolean }) {
  const [done, setDone] = useState(false);
  const words = text();
  const name = done ? words.copied : (label ?? words.copy);
  const copy = async (): Promise<void> => {
    await write(what());
    setDone(true);
    setTimeout(() => setDone(false), SAID_MS);
  };
  return (
    <button type="button" class={wide ? "quiet" : "quiet only-icon"} title={name} aria-label={wide ? undefined : name} onClick={() => void copy()}>
      {done ? <Icons.check /> : <Icons.copy />}
      {wide && <span>{name}</span>}
    </button>
  );
}
