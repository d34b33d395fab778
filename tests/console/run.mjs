// Runs the checks, two at a time, and writes a line of JSON for each: its name, and what was wrong, or null.

import { checks as answers } from "./answers.mjs";
import { checks as connection } from "./connection.mjs";
import { checks as inspector } from "./inspector.mjs";
import { checks as looks } from "./looks.mjs";
import { shoot } from "./screenshots.mjs";
import { World } from "./world.mjs";

const { CONSOLE_FILMS: films, CONSOLE_MODEL: model, CONSOLE_DIRECTOR: director, CONSOLE_CHROMIUM: chromium, CONSOLE_SCREENSHOTS: folder } = process.env;
const only = process.argv[2];

const world = await World.open({ films, model, director, chromium });
try {
  // The model answers one question at a time, everything else may go on beside that.
  await Promise.all([each({ ...connection, ...answers }), each({ ...inspector, ...looks })]);
  report("no page has anything to complain about on its console", world.complaints.length === 0 ? null : world.complaints.join("\n"), performance.now());
  if (folder) await shoot(world, folder);
} finally {
  await world.close();
}

async function each(checks) {
  for (const [name, check] of Object.entries(checks)) {
    if (only !== undefined && !name.includes(only)) continue;
    const begun = performance.now();
    const wrong = await check(world).then(
      () => null,
      (error) => String(error.stack),
    );
    report(name, wrong, begun);
  }
}

function report(name, wrong, begun) {
  console.log(JSON.stringify({ name, wrong, took_ms: Math.round(performance.now() - begun) }));
}
