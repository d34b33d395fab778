// The README's pictures, made when they are asked for: the page after a cut, its films, a message, on a desk and a phone.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { smaller } from "./png.mjs";
import { ask, isWhole, reads, serverHas } from "./world.mjs";

const DESK = { viewport: { width: 1200, height: 760 } };
const PHONE = { viewport: { width: 375, height: 720 }, deviceScaleFactor: 2 };
const PICTURES = [
  { name: "desktop-light", colorScheme: "light", options: DESK, view: null },
  { name: "desktop-dark", colorScheme: "dark", options: DESK, view: "message" },
  { name: "phone-light", colorScheme: "light", options: PHONE, view: null },
  { name: "phone-dark", colorScheme: "dark", options: PHONE, view: "frames" },
];
/** Between two pieces, so that each is a frame of its own: the server puts what comes within 40 ms into one. */
const APART_MS = 60;

const TOLD = {
  "zh-CN": {
    question: "推荐三部诺兰导演的电影",
    answer:
      "想从诺兰的电影看起，可以先看这三部：\n1. 《盗梦空间》（2010）：一个潜入梦境偷取想法的人，接下了植入想法的委托。\n2. 《星际穿越》（2014）：为了给人类找到新的家园，一位父亲穿过了虫洞。\n3. 《蝙蝠侠：黑暗骑士》（2008）：小丑把哥谭变成了一场关于人心的实验。",
    search: "盗梦空间",
  },
  "en-US": {
    question: "Recommend three films by Christopher Nolan",
    answer:
      "Three films by Christopher Nolan to begin with:\n1. \"Inception\" (2010): a thief who steals ideas out of dreams is asked to plant one.\n2. \"Interstellar\" (2014): to find mankind another home, a father flies through a wormhole.\n3. \"The Dark Knight\" (2008): the Joker makes an experiment of Gotham.",
    search: "Inception",
  },
};

export async function shoot(world, folder) {
  fs.mkdirSync(folder, { recursive: true });
  for (const locale of Object.keys(TOLD)) {
    for (const picture of PICTURES) {
      const page = await world.inside(world.model, { ...picture.options, colorScheme: picture.colorScheme, locale, bypassCSP: true, prepare: dress });
      await page.addStyleTag({ url: "/fonts/index.css" });
      await converse(world, page, TOLD[locale]);
      if (picture.view !== null) await page.click(`.views [data-for=${picture.view}]`);
      if (picture.name === "phone-light") await page.evaluate(() => document.querySelector(".films").scrollIntoView());
      if (picture.view === "message") await search(page, TOLD[locale].search);
      await page.mouse.move(0, 0);
      await page.evaluate(async () => {
        document.activeElement.blur();
        await document.fonts.ready;
        await Promise.all(document.getAnimations().map((each) => each.finished.catch(() => undefined)));
      });
      const png = await page.screenshot({ animations: "disabled" });
      fs.writeFileSync(path.join(folder, `${picture.name}.${locale.slice(0, 2)}.png`), smaller(png));
      await page.context().close();
    }
  }
}

/** A font that has Chinese, which the machine that makes the pictures need not have. */
async function dress(page) {
  const fonts = path.dirname(createRequire(new URL("../../console/package.json", import.meta.url)).resolve("@fontsource-variable/noto-sans-sc/index.css"));
  const css = fs.readFileSync(path.join(fonts, "index.css"), "utf8").replaceAll("Noto Sans SC Variable", "Pictures");
  const body = `${css} :root { --sans: Pictures, sans-serif; --mono: "DejaVu Sans Mono", Pictures, monospace; }`;
  await page.route("**/fonts/index.css", (route) => route.fulfill({ body, contentType: "text/css" }));
  await page.route("**/fonts/files/**", (route) => route.fulfill({ path: path.join(fonts, "files", path.basename(new URL(route.request().url()).pathname)) }));
}

async function converse(world, page, { question, answer }) {
  const pieces = answer.match(/[\x20-\x7e]{1,9}|[^\x20-\x7e]{1,3}/gu);
  const upTo = (count) => pieces.slice(0, count).join("");
  const cutAt = Math.round(pieces.length * 0.4);
  const backAt = Math.round(pieces.length * 0.7);
  const letOut = async (from, to) => {
    for (let count = from + 1; count <= to; count += 1) {
      await world.letOut(count);
      await page.waitForTimeout(APART_MS);
    }
  };
  await world.plan(pieces);
  await ask(page, question);
  await letOut(0, cutAt);
  await reads(page, upTo(cutAt));
  await page.selectOption(".linkbar select", "null");
  await page.click(".linkbar button.cut");
  await letOut(cutAt, backAt);
  await serverHas(page, world.model, upTo(backAt));
  await page.click(".linkbar button.primary");
  await reads(page, upTo(backAt));
  await letOut(backAt, pieces.length);
  await isWhole(page);
  await page.waitForSelector("article.film");
}

async function search(page, words) {
  await page.selectOption(".type select", "movies_search");
  await page.fill("#field-query", words);
  await page.fill("#field-limit", "1");
  await page.click(".compose button[type=submit]");
  await page.waitForSelector(".answers pre");
}
