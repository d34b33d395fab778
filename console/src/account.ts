/** Who is logged in on this page. The token lives as long as the tab, so that reloading it keeps the login. */

import type { LoggedIn } from "./wire";

const KEY = "cinewire.token";

export interface Account {
  openid: string | null;
  sessionId: string;
}

export function token(): string | null {
  return sessionStorage.getItem(KEY);
}

export function keep(login: LoggedIn): Account {
  sessionStorage.setItem(KEY, login.token);
  return { openid: login.openid ?? null, sessionId: login.session_id };
}

export function forget(): void {
  sessionStorage.removeItem(KEY);
}
