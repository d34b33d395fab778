// Checks of what a developer sees and sends beside the chat: messages by form and as raw JSON, and every frame.

import assert from "node:assert/strict";
import { frames } from "./world.mjs";

async function composing(world) {
  const page = await world.inside(world.films);
  await page.getByRole("button", { name: "Message", exact: true }).click();
  await page.waitForSelector(".field");
  return page;
}

export const checks = {
  "the form has every message of the document, and each example of it is fine": async (world) => {
    const page = await composing(world);
    const document = await (await fetch(`${world.films}/asyncapi.json`)).json();
    const wanted = Object.entries(document.operations).filter(([name, each]) => each.action === "receive" && !name.endsWith("_on_plain"));
    const offered = await page.$$eval(".type option", (options) => options.map((option) => option.value));
    assert.deepEqual(offered.toSorted(), wanted.map(([name]) => name).toSorted());
    for (const type of offered) {
      await page.selectOption(".type select", type);
      await page.getByRole("button", { name: "Fill in the example" }).click();
      assert.equal(await page.locator(".field.wrong").count(), 0, type);
      const made = JSON.parse(await page.textContent(".preview pre"));
      const message = document.components.messages[wanted.find(([name]) => name === type)[1].messages[0].$ref.split("/").at(-1)];
      assert.deepEqual(made, message.examples[0].payload, type);
    }
    await page.context().close();
  },

  "a message made by the form is sent when it keeps to the bounds, and its answer is shown": async (world) => {
    const page = await composing(world);
    await page.selectOption(".type select", "movies_search");
    assert.match(await page.textContent("#field-query-hint"), /string · 1–100 characters/);
    assert.match(await page.textContent("#field-limit-hint"), /integer · 1–50 · default 20/);
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.waitForSelector("#field-query:focus[aria-invalid=true]");
    await page.fill("#field-query", "黑客帝国");
    await page.fill("#field-limit", "999");
    assert.match(await page.textContent("#field-limit-hint"), /is out of bounds/);
    await page.fill("#field-limit", "1");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByText('"tmdb_id": 603').waitFor();
    await page.context().close();
  },

  "of two names for an answer exactly one is wanted": async (world) => {
    const page = await composing(world);
    await page.selectOption(".type select", "cancel");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.waitForSelector("p.bad:has-text('exactly one of request_id, chat_id')");
    await page.fill("#field-chat_id", "never-asked");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByText('"reason": "run_not_found"').waitFor();
    await page.context().close();
  },

  "raw JSON goes out as it stands, wrong or not": async (world) => {
    const page = await composing(world);
    await page.getByRole("button", { name: "Raw JSON" }).click();
    await page.fill("textarea.raw", '{"type": "nonsense", "id": "x1"}');
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByText('"reason": "unknown_type"').waitFor();
    await page.context().close();
  },

  "frames of both ways have time and size, are filtered, opened and copied, and tokens are kept back": async (world) => {
    const page = await world.inside(world.films, { permissions: ["clipboard-read", "clipboard-write"] });
    await page.waitForFunction(() => document.querySelector(".frames ol").textContent.includes("history_response"));
    const shown = await frames(page);
    assert.deepEqual(new Set(shown.map((frame) => frame.direction)), new Set(["event", "in", "out"]));
    assert.ok(!shown.some((frame) => frame.type === "ping"));
    await page.getByLabel("Heartbeat").check();
    assert.ok((await frames(page)).some((frame) => frame.type === "ping"));

    await page.getByRole("searchbox", { name: "Filter" }).fill("login token");
    const rows = page.locator(".frames .frame");
    assert.equal(await rows.count(), 1);
    assert.match(await rows.locator("time").textContent(), /^\d\d:\d\d:\d\d\.\d{3}$/);
    const size = Number(/^(\d+) B$/.exec(await rows.locator(".bytes").textContent())[1]);
    await rows.locator("button.line").click();
    const token = await page.evaluate(() => sessionStorage.getItem("cinewire.token"));
    const copied = async () => {
      await rows.locator(".opened button").click();
      return page.evaluate(() => navigator.clipboard.readText());
    };
    const masked = await copied();
    assert.ok(masked.includes(`${token.slice(0, 8)}…`) && !masked.includes(token));
    assert.ok(!(await rows.textContent()).includes(token));
    await page.getByLabel("Tokens").check();
    const whole = await copied();
    assert.equal(JSON.parse(whole).data.token, token);
    assert.equal(Buffer.byteLength(whole), size);

    await page.getByRole("searchbox", { name: "Filter" }).fill("");
    await page.getByRole("group", { name: "Filter" }).getByRole("button", { name: "Sent" }).click();
    assert.deepEqual(new Set((await frames(page)).map((frame) => frame.direction)), new Set(["out"]));
    await page.getByRole("button", { name: "Copy what is shown" }).click();
    assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^[\d:.]+ > \{"type":"ping"/);
    await page.context().close();
  },
};
