// Checks of what an answer goes through: it streams, is cut off, resumed, asked for again, rated.

import assert from "node:assert/strict";
import { ask, frames, isWhole, reads, serverHas } from "./world.mjs";

const STORY = ["从前", "有一部", "电影，", "讲的是", "一个梦", "里的", "梦。", "那个", "陀螺", "还在", "转。", "The end."];
const WHOLE = STORY.join("");
const upTo = (count) => STORY.slice(0, count).join("");

export const checks = {
  "an answer streams in as it is made": async (world) => {
    const page = await world.inside(world.model);
    await world.plan(STORY);
    await ask(page, "Tell me a story");
    await world.letOut(3);
    await reads(page, upTo(3));
    assert.equal(await page.getAttribute(".answer", "aria-busy"), "true");
    await world.letOut(STORY.length);
    await isWhole(page);
    await reads(page, WHOLE);
    assert.equal(await page.getAttribute(".answer", "aria-busy"), "false");
    await page.context().close();
  },

  "an answer that is cut off is resumed whole, and nothing comes twice": async (world) => {
    const page = await world.inside(world.model);
    await world.plan(STORY);
    await ask(page, "Tell me a story");
    await world.letOut(4);
    await reads(page, upTo(4));
    await page.selectOption(".linkbar select", "null");
    await page.click(".linkbar button.cut");
    await page.waitForSelector(".linkbar.cut");
    await world.letOut(9);
    await serverHas(page, world.model, upTo(9));
    await reads(page, upTo(4)); // nothing gets to who is away
    await page.click(".linkbar button.primary");
    await reads(page, upTo(9));
    await world.letOut(STORY.length);
    await isWhole(page);
    await reads(page, WHOLE);

    const shown = await frames(page);
    const seqs = shown.filter((frame) => frame.seq !== null).map((frame) => frame.seq);
    assert.deepEqual(seqs, Array.from({ length: seqs.length }, (_, at) => at + 1));
    const resume = shown.find((frame) => frame.direction === "out" && frame.type === "resume");
    const lastBefore = Number(/"after_seq":(\d+)/.exec(resume.text)[1]);
    assert.ok(lastBefore >= 1 && lastBefore < seqs.length);
    const said = await page.textContent(".absences");
    assert.match(said, new RegExp(`Cut off after seq ${lastBefore} `));
    const late = await page.$$eval(".frame .late", (marks) => marks.map((mark) => Number(mark.textContent)));
    const replayed = Number(/missed (\d+) frames/.exec(said)[1]);
    assert.ok(replayed >= 1);
    assert.deepEqual(late, Array.from({ length: replayed }, (_, at) => lastBefore + 1 + at));
    assert.match(said, new RegExp(`seq ${lastBefore + 1}–${lastBefore + replayed}, ${replayed} frames, replayed`));
    assert.equal(await page.getAttribute(".ribbon [role=img]", "aria-label"), `${seqs.length} frames, ${replayed} of them replayed`);
    await page.context().close();
  },

  "a page that is reloaded in mid-answer goes on with it": async (world) => {
    const page = await world.inside(world.model);
    await world.plan(STORY);
    await ask(page, "Tell me a story");
    await world.letOut(5);
    await reads(page, upTo(5));
    await page.reload();
    await reads(page, upTo(5));
    await world.letOut(STORY.length);
    await isWhole(page);
    await reads(page, WHOLE);
    assert.equal(await page.locator(".turn").count(), 1);
    await page.reload();
    await reads(page, WHOLE); // now it comes from the history
    await page.context().close();
  },

  "a question that is asked before the history is there is neither lost nor doubled": async (world) => {
    let letThrough;
    const held = new Promise((resolve) => (letThrough = resolve));
    const prepare = (page) =>
      page.routeWebSocket("**/wechat/ws", (socket) => {
        const server = socket.connectToServer();
        server.onMessage(async (message) => {
          if (JSON.parse(message).type === "history_response") await held;
          socket.send(message);
        });
      });
    const page = await world.inside(world.model, { prepare });
    await world.plan(STORY);
    await world.letOut(STORY.length);
    await ask(page, "Tell me a story");
    letThrough();
    await isWhole(page);
    await reads(page, WHOLE);
    assert.equal(await page.locator(".turn").count(), 1);
    await page.context().close();
  },

  "a question that was asked while away is asked on return": async (world) => {
    const page = await world.inside(world.model);
    await page.selectOption(".linkbar select", "null");
    await page.click(".linkbar button.cut");
    await world.plan(STORY);
    await world.letOut(STORY.length);
    await ask(page, "Tell me a story");
    await page.click(".linkbar button.primary");
    await isWhole(page);
    await reads(page, WHOLE);
    await page.context().close();
  },

  "an answer is stopped, and what there was of it stays": async (world) => {
    const page = await world.inside(world.model);
    await world.plan(STORY);
    await ask(page, "Tell me a story");
    await world.letOut(2);
    await reads(page, upTo(2));
    await page.click(".actions button");
    await isWhole(page);
    await reads(page, upTo(2));
    assert.match(await page.textContent(".course"), /stopped/);
    await page.context().close();
  },

  "a question is answered again, and either answer can be looked at": async (world) => {
    const page = await world.inside(world.model);
    await world.plan(["The first", " answer."]);
    await world.letOut(2);
    await ask(page, "Say something");
    await isWhole(page);
    await world.plan(["Another", " answer."]);
    await world.letOut(1);
    await page.getByRole("button", { name: "Answer again" }).click();
    await reads(page, "Another");
    await page.click(".linkbar button.cut");
    await page.click(".linkbar button.primary");
    await world.letOut(2);
    await reads(page, "Another answer.");
    await isWhole(page);
    const resumed = (await frames(page)).filter((frame) => frame.direction === "out").map((frame) => frame.type);
    assert.deepEqual(resumed.slice(0, resumed.indexOf("resume") + 1).slice(-3), ["regenerate", "auth", "resume"]);
    await page.waitForSelector(".branches");
    assert.equal(await page.getAttribute(".branches", "aria-label"), "Answer 2 of 2");
    await page.getByRole("button", { name: "Previous answer" }).click();
    await reads(page, "The first answer.");
    assert.equal(await page.getAttribute(".branches", "aria-label"), "Answer 1 of 2");
    assert.equal(await page.locator(".turn").count(), 1);
    await page.context().close();
  },

  "when no other answer comes, the first one is there again": async (world) => {
    const page = await world.inside(world.model);
    await world.plan(["The only", " answer."]);
    await world.letOut(2);
    await ask(page, "Say something");
    await isWhole(page);
    await world.tell("fail", null);
    await page.getByRole("button", { name: "Answer again" }).click();
    await page.waitForSelector(".strip-of-text");
    assert.match(await page.textContent(".strip-of-text"), /model_/);
    await reads(page, "The only answer.");
    await page.context().close();
  },

  "an answer is rated, with a comment": async (world) => {
    const page = await world.inside(world.films);
    await ask(page, "Who directed Inception?");
    await isWhole(page);
    await page.locator(".opinion label").nth(3).click();
    await page.getByText("Noted; change it at any time").waitFor();
    await page.fill(".opinion input:not([type=radio])", "That is what I wanted to know");
    await page.click(".opinion button[type=submit]");
    await page.waitForFunction(() => [...document.querySelectorAll(".frame.in strong")].filter((name) => name.textContent === "feedback_response").length === 2);
    const sent = (await frames(page)).filter((frame) => frame.type === "feedback").at(-1);
    assert.match(sent.text, /"rating":4,"comment":"That is what I wanted to know"/);
    await page.context().close();
  },
};
