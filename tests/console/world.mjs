// What every check has: a browser, pages of the console in it, and the model's answers, which wait to be let go on.

import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";

const installed = createRequire(new URL("../../console/package.json", import.meta.url));
const { chromium } = installed("playwright-core");

export const PATIENCE_MS = 15_000;
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
export const axeSource = fs.readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8");

export class World {
  /** What any page said on its console that it should not have to say. */
  complaints = [];

  static async open({ films, model, director, chromium: executablePath }) {
    // Playwright starts it with a new, empty folder for its user, and removes that.
    const browser = await chromium.launch({ executablePath, args: FLAGS });
    return Object.assign(new World(), { films, model, director, browser });
  }

  async close() {
    await this.browser.close();
  }

  /** A page of somebody new, at the console of `url`. */
  async page(url, options = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-US", colorScheme: "light", ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("console", (said) => {
      const isPoster = said.location().url.startsWith("https://image.tmdb.org/");
      if (said.type() === "error" && !isPoster) this.complaints.push(`${said.text()} ${said.location().url}`);
    });
    page.on("pageerror", (error) => this.complaints.push(String(error.stack)));
    // The outside is not asked for anything: without a check's own posters there are none.
    await page.route("https://image.tmdb.org/**", (route) => route.abort());
    if (options.prepare) await options.prepare(page);
    await page.goto(`${url}/console`);
    return page;
  }

  /** The same, logged in. */
  async inside(url, options = {}) {
    const page = await this.page(url, options);
    await page.click(".login button[type=submit]");
    await page.waitForSelector("#query");
    return page;
  }

  /** The model's next answer: each piece waits until it is let out. */
  async plan(pieces) {
    await this.tell("plan", pieces);
  }

  async letOut(count) {
    await this.tell("open", count);
  }

  async tell(what, value) {
    const response = await fetch(`${this.director}/${what}`, { method: "POST", body: JSON.stringify(value), signal: AbortSignal.timeout(PATIENCE_MS) });
    assert.equal(response.status, 204);
  }
}

export async function ask(page, question) {
  await page.fill("#query", question);
  await page.press("#query", "Enter");
}

/** Wait until the newest answer reads so. */
export async function reads(page, text) {
  await page.waitForFunction((wanted) => [...document.querySelectorAll("[data-answer]")].at(-1)?.textContent === wanted, text);
}

export async function isWhole(page) {
  await page.waitForSelector(".turn:last-child [data-agrees=true]");
}

/** Wait until the server has this text of an answer, whoever follows it. */
export async function serverHas(page, url, text) {
  const requestId = await page.textContent(".turn:last-child .request code");
  const token = await page.evaluate(() => sessionStorage.getItem("cinewire.token"));
  const given = new AbortController();
  const timer = setTimeout(() => given.abort(), PATIENCE_MS);
  const response = await fetch(`${url}/api/v1/streams/${requestId}`, { headers: { Authorization: `Bearer ${token}` }, signal: given.signal });
  assert.equal(response.status, 200);
  let events = "";
  let had = "";
  const decoder = new TextDecoder();
  try {
    for await (const bytes of response.body) {
      events += decoder.decode(bytes, { stream: true });
      const ended = events.lastIndexOf("\n\n");
      const lines = events.slice(0, Math.max(ended, 0)).split("\n").filter((line) => line.startsWith("data: "));
      events = events.slice(Math.max(ended, 0));
      for (const frame of lines.map((line) => JSON.parse(line.slice(6)))) if (frame.type === "chunk") had += frame.content;
      if (had.startsWith(text)) return;
    }
  } finally {
    clearTimeout(timer);
    given.abort();
  }
  assert.fail(`the server had ${JSON.stringify(had)}`);
}

/** The frames that the page shows, as their opened texts would be: the newest last. */
export async function frames(page) {
  return page.$$eval(".frames .frame", (rows) =>
    rows.map((row) => ({
      direction: row.className.split(" ")[1],
      type: row.querySelector("strong").textContent,
      seq: row.querySelector(".seq") ? Number(row.querySelector(".seq").textContent) : null,
      text: row.querySelector(".peek").textContent,
    })),
  );
}
