// Checks of logging in, and of a connection that the server ends: when the page comes back by itself and when it does not.

import assert from "node:assert/strict";
import { frames } from "./world.mjs";

/** Stands between the page and the server: `close` ends the newest connection as the server would. */
async function between(page) {
  const held = { opened: 0, close: () => undefined };
  await page.routeWebSocket("**/wechat/ws", (socket) => {
    held.opened += 1;
    const server = socket.connectToServer();
    held.close = async (code, before) => {
      if (before !== undefined) socket.send(JSON.stringify(before));
      await socket.close({ code, reason: "as the check wants it" });
      await server.close();
    };
  });
  return held;
}

export const checks = {
  "anybody logs in with any code, and the same code is the same person": async (world) => {
    const who = async (code) => {
      const page = await world.page(world.films);
      await page.fill("#code", code);
      await page.press("#code", "Enter");
      await page.waitForSelector("#query:focus");
      const openid = await page.getAttribute(".who", "title");
      assert.match(openid, /^Logged in as local_/);
      await page.context().close();
      return openid;
    };
    assert.equal(await who("anything at all"), await who("anything at all"));
    assert.notEqual(await who("anything at all"), await who("something else"));
  },

  "who only connects may send what needs no login, and logs in by a message": async (world) => {
    const page = await world.page(world.films);
    await page.getByRole("button", { name: "Only connect" }).click();
    await page.waitForSelector(".linkbar.open");
    await page.getByRole("button", { name: "Message", exact: true }).click();
    await page.selectOption(".type select", "history");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByText('"reason": "login_required"').waitFor();
    await page.selectOption(".type select", "login");
    await page.fill("#field-code", "by a message");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.waitForSelector("#query");
    await page.context().close();
  },

  "who logs out is asked for a code again, and its token is gone": async (world) => {
    const page = await world.inside(world.films);
    await page.getByRole("button", { name: "Log out" }).click();
    await page.waitForSelector("#code");
    assert.equal(await page.evaluate(() => sessionStorage.getItem("cinewire.token")), null);
    await page.click(".login button[type=submit]");
    await page.waitForSelector("#query");
    await page.context().close();
  },

  "a node that restarts is come back to, by the token and when it says": async (world) => {
    let held;
    const page = await world.inside(world.films, { prepare: async (fresh) => (held = await between(fresh)) });
    await held.close(1012, { type: "goodbye", code: 1012, message: "", retry_after_ms: 321 });
    await page.waitForFunction(() => [...document.querySelectorAll(".frame strong")].some((name) => name.textContent === "auth_response"));
    await page.waitForSelector(".linkbar.open");
    assert.equal(held.opened, 2);
    const waited = (await frames(page)).find((frame) => frame.direction === "event" && frame.text.includes("waiting"));
    assert.match(waited.text, /"code":1012,.*"wait_ms":32[12]\b/);
    await page.context().close();
  },

  "a socket that a newer one replaced does not come back by itself": async (world) => {
    let held;
    const page = await world.inside(world.films, { prepare: async (fresh) => (held = await between(fresh)) });
    await held.close(4008);
    await page.waitForSelector(".linkbar.closed");
    assert.match(await page.textContent(".linkbar"), /close code 4008/);
    assert.equal(held.opened, 1);
    await page.click(".linkbar button.primary");
    await page.waitForSelector(".linkbar.open");
    assert.equal(held.opened, 2);
    await page.context().close();
  },

  "a session that was revoked is not used again": async (world) => {
    let held;
    const page = await world.inside(world.films, { prepare: async (fresh) => (held = await between(fresh)) });
    await held.close(4003);
    await page.waitForSelector("#code");
    assert.match(await page.textContent(".login [role=alert]"), /session_revoked/);
    await page.click(".login button[type=submit]");
    await page.waitForSelector("#query");
    await page.context().close();
  },
};
