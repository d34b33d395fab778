// Checks of how the page looks and to whom it is open: films, languages, themes, narrow screens, keyboard, axe.

import assert from "node:assert/strict";
import { ask, axeSource, isWhole } from "./world.mjs";

const NOTICE = "This product uses TMDB and the TMDB APIs but is not endorsed, certified, or otherwise approved by TMDB.";
const PNG = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");
/** Four of the five films that answer it have a poster at TMDB. */
const QUESTION = "推荐几部评分高的剧情片";

async function recommended(world, options = {}) {
  const page = await world.inside(world.films, options);
  await ask(page, QUESTION);
  await isWhole(page);
  await page.waitForSelector("article.film");
  return page;
}

async function background(page) {
  return page.evaluate(() => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = getComputedStyle(document.querySelector(".bar")).backgroundColor;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data[0];
  });
}

/** In the second theme nothing but colours can be different. */
async function findings(page, colorScheme) {
  await page.evaluate(axeSource);
  const options = { resultTypes: ["violations"], ...(colorScheme === "dark" && { runOnly: ["color-contrast"] }) };
  const { violations } = await page.evaluate((chosen) => window.axe.run(document, chosen), options);
  const grave = violations.filter((each) => each.impact === "serious" || each.impact === "critical");
  return grave.map((each) => `${each.id}: ${each.nodes.map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
}

export const checks = {
  "recommended films have cards; a poster that does not load is drawn": async (world) => {
    let loaded = 0;
    const prepare = (page) =>
      page.route("https://image.tmdb.org/t/p/w342/**", (route) => {
        loaded += 1;
        return loaded === 1 ? route.fulfill({ body: PNG, contentType: "image/png" }) : route.abort();
      });
    const page = await recommended(world, { prepare });
    await page.locator(".films").scrollIntoViewIfNeeded();
    await page.waitForFunction(() => {
      const posters = [...document.querySelectorAll(".poster img")];
      return posters.length === 1 && posters[0].naturalWidth > 0;
    });
    assert.equal(loaded, 4);
    assert.equal(await page.locator(".poster svg").count(), 5);
    const cards = await page.$$eval("article.film", (films) => films.map((film) => film.innerText));
    assert.equal(cards.length, 5);
    for (const card of cards) assert.match(card, /\d{4}\s+\d\.\d/);
    assert.match(await page.textContent(".notice"), new RegExp(NOTICE));
    await page.context().close();
  },

  "the page speaks the browser's language, and the other when asked": async (world) => {
    const page = await recommended(world, { locale: "zh-CN" });
    assert.equal(await page.getAttribute("html", "lang"), "zh-CN");
    assert.equal(await page.title(), "CineWire 控制台");
    assert.match(await page.textContent(".notice"), new RegExp(`${NOTICE} 本产品使用 TMDB API，但未经 TMDB 认可或认证。`));
    await page.getByRole("button", { name: "EN", exact: true }).click();
    assert.equal(await page.getAttribute("html", "lang"), "en");
    await page.getByRole("button", { name: "Answer again" }).waitFor();
    assert.doesNotMatch(await page.textContent(".bar, .views, .linkbar, .tools"), /[\u4e00-\u9fff]{3}/);
    await page.reload();
    await page.getByRole("button", { name: "Answer again" }).waitFor();
    assert.equal(await page.title(), "CineWire console");
    await page.context().close();
  },

  "it is dark where the system is, and as it is switched": async (world) => {
    const page = await world.page(world.films, { colorScheme: "dark" });
    assert.ok((await background(page)) < 60);
    await page.getByRole("button", { name: "Light" }).click();
    assert.ok((await background(page)) > 200);
    await page.reload();
    assert.ok((await background(page)) > 200);
    await page.getByRole("button", { name: "As the system" }).click();
    assert.ok((await background(page)) < 60);
    await page.emulateMedia({ colorScheme: "light" });
    assert.ok((await background(page)) > 200);
    await page.getByRole("button", { name: "Dark" }).click();
    assert.ok((await background(page)) < 60);
    await page.context().close();
  },

  "nothing needs to be scrolled sideways at 375 px": async (world) => {
    for (const locale of ["zh-CN", "en-US"]) {
      const page = await recommended(world, { locale, viewport: { width: 375, height: 667 } });
      for (const view of ["chat", "frames", "message"]) {
        await page.click(`.views [data-for=${view}]`);
        if (view === "message") {
          await page.selectOption(".type select", "chat");
          await page.click(".compose .row button:nth-child(2)");
        }
        const wide = await page.evaluate(() => [document.documentElement, ...document.querySelectorAll(".turns, .frames ol, .compose")].map((box) => box.scrollWidth));
        assert.ok(wide.every((width) => width <= 375), `${locale} ${view}: ${wide}`);
        const out = await page.$$eval("button, input, select, textarea, p, article", (all) =>
          all.filter((one) => one.getClientRects().length > 0 && !one.closest(".peek, .unseen")).map((one) => one.getBoundingClientRect()).filter((box) => box.right > 375.5 || box.left < -0.5).length,
        );
        assert.equal(out, 0, `${locale} ${view}`);
      }
      await page.context().close();
    }
  },

  "all of it is reached by keyboard, and one sees where one is": async (world) => {
    const page = await world.page(world.films);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    assert.ok((await page.evaluate(() => document.activeElement.getBoundingClientRect().left)) >= 0);
    await page.press("#code", "Enter");
    await page.waitForSelector("#query:focus");
    await page.keyboard.type(QUESTION);
    await page.keyboard.press("Enter");
    await isWhole(page);
    await page.waitForSelector("article.film");
    const wanted = await page.evaluate(() => {
      const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")];
      // Of radio buttons that belong together one is reached; what is in closed details is not there.
      window.wanted = new Set(all.filter((one) => one.checkVisibility({ contentVisibilityAuto: true }) && !one.disabled && one.type !== "radio"));
      return window.wanted.size;
    });
    assert.ok(wanted > 20);
    // More may have come meanwhile, and the browser's own frame is on the way.
    for (let presses = 0; presses < wanted + 20; presses += 1) {
      await page.keyboard.press("Tab");
      const hidden = await page.evaluate(() => {
        const one = document.activeElement;
        window.wanted.delete(one);
        const style = getComputedStyle(one);
        const isVisible = one === document.body || one.type === "radio" || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2);
        return isVisible ? null : one.outerHTML;
      });
      assert.equal(hidden, null);
    }
    assert.deepEqual(await page.evaluate(() => [...window.wanted].map((one) => one.outerHTML)), []);
    for (const role of ["banner", "navigation", "main", "complementary"]) assert.equal(await page.getByRole(role).count(), 1, role);
    assert.equal(await page.getAttribute(".turns", "aria-live"), "polite");
    await page.context().close();
  },

  "axe finds nothing serious, light or dark, wide or narrow": async (world) => {
    for (const colorScheme of ["light", "dark"]) {
      const page = await world.page(world.films, { colorScheme, viewport: { width: 1700, height: 800 } });
      assert.deepEqual(await findings(page, colorScheme), [], `${colorScheme} login`);
      await page.click(".login button[type=submit]");
      await page.waitForSelector("#query");
      await ask(page, QUESTION);
      await isWhole(page);
      await page.waitForSelector("article.film");
      await page.locator(".opinion label").nth(1).click();
      await page.locator("button.line").last().click();
      await page.selectOption(".type select", "chat");
      await page.getByRole("button", { name: "Send", exact: true }).click();
      assert.deepEqual(await findings(page, colorScheme), [], `${colorScheme} wide`);
      await page.setViewportSize({ width: 375, height: 667 });
      await page.selectOption(".linkbar select", "null");
      await page.click(".linkbar button.cut");
      assert.deepEqual(await findings(page, colorScheme), [], `${colorScheme} narrow`);
      await page.context().close();
    }
  },
};
