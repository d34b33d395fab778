/** Language and theme: by the browser, or as chosen here before. */

import { Store } from "./store";
import { type Language, type Words, words } from "./words";

export type Theme = "system" | "light" | "dark";

const LANGUAGE = "cinewire.language";
const THEME = "cinewire.theme";

export const language = new Store<Language>(chosenLanguage());
export const theme = new Store<Theme>(chosenTheme());

/** The page's texts in the language of the moment. */
export function text(): Words {
  return words[language.get()];
}

export function chooseLanguage(chosen: Language): void {
  localStorage.setItem(LANGUAGE, chosen);
  language.set(chosen);
  show();
}

export function chooseTheme(chosen: Theme): void {
  localStorage.setItem(THEME, chosen);
  theme.set(chosen);
  show();
}

/** Tell the document, from which the styles follow. */
export function show(): void {
  const root = document.documentElement;
  root.lang = language.get() === "zh" ? "zh-CN" : "en";
  document.title = text().title;
  if (theme.get() === "system") delete root.dataset["theme"];
  else root.dataset["theme"] = theme.get();
}

function chosenLanguage(): Language {
  const chosen = localStorage.getItem(LANGUAGE);
  if (chosen === "zh" || chosen === "en") return chosen;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

function chosenTheme(): Theme {
  const chosen = localStorage.getItem(THEME);
  return chosen === "light" || chosen === "dark" ? chosen : "system";
}
