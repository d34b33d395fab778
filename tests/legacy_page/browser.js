// Chromium for a test in Python. Reads commands from standard input, one JSON object a line, and answers each by one:
// {do: "open", url, without} | {do: "reload"} | {do: "run", code, value} | {do: "wait", code, value} | {do: "parse", file}
// `without` names what the page's browser lacks; `run` and `wait` evaluate a function's source in the page.
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const { parse } = require('acorn');
const { chromium } = require('playwright-core');

const PATIENCE_MS = 15_000;
const FLAGS = ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--no-proxy-server'];

let browser = null;
let page = null;
let mistakes = [];

const commands = {
  async open({ url, without }) {
    browser ??= await chromium.launch({
      executablePath: process.argv[2], headless: true, chromiumSandbox: false, args: FLAGS,
    });
    const context = await browser.newContext();
    page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.on('pageerror', (error) => mistakes.push(String(error)));
    await page.addInitScript((names) => names.forEach((name) => { delete window[name]; }), without);
    await page.goto(url);
  },
  async reload() {
    await page.reload();
  },
  async run({ code, value }) {
    return page.evaluate(`(${code})(${JSON.stringify(value ?? null)})`);
  },
  async wait({ code, value }) {
    const handle = await page.waitForFunction(`(${code})(${JSON.stringify(value ?? null)})`);
    return handle.jsonValue();
  },
  // Raises what an engine of 2009 would.
  async parse({ file }) {
    parse(fs.readFileSync(file, 'utf8'), { ecmaVersion: 5, sourceType: 'script' });
  },
  async close() {
    await page.context().close();
    const made = mistakes;
    mistakes = [];
    return made;
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    let answer;
    try {
      answer = { value: await commands[command.do](command) };
    } catch (error) {
      answer = { error: String(error) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  await browser?.close();
}

main();
