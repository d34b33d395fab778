// What both peers in JavaScript say, and the scripted model as tests/bench/scripted_model.py has it: pieces are due by
// the machine's clock, in slots of a millisecond, and say when they were due.

export const PONG = { type: "pong", code: 0, message: "pong", data: null };
export const LOGGED_IN = { type: "login_response", code: 0, message: "ok", data: { openid: "somebody" } };
export const UNKNOWN = { type: "error", code: 400, message: "unknown type", data: null };

export function reply(message) {
  if (message.type === "ping") return PONG;
  return message.type === "login" ? LOGGED_IN : UNKNOWN;
}

const RATE = 50, SLOTS = 20, SLOT_NS = 1_000_000n;
let nextSlot = 0;
let timer = null;
let lastTick = 0n;
const slots = Array.from({ length: SLOTS }, () => new Set());
let running = 0;

// Has `send` called with every frame of an answer that takes that many seconds; gives what ends it early.
export function stream(seconds, send) {
  const total = Math.round(seconds * RATE);
  const slot = (nextSlot = (nextSlot + 1) % SLOTS);
  const now = process.hrtime.bigint();
  const firstTick = now / SLOT_NS + 1n;
  const answer = { number: 0, total, send, tick: firstTick + BigInt((slot - Number(firstTick % 20n) + SLOTS) % SLOTS) };
  say(answer, now);
  slots[slot].add(answer);
  running += 1;
  if (timer === null) {
    lastTick = now / SLOT_NS;
    timer = setInterval(wake, 1);
  }
  return () => end(answer, slot);
}

function say(answer, dueNs) {
  const seq = answer.number + 1;
  answer.send({ type: "chunk", request_id: "7f3c", seq, content: `影@${answer.number}.${dueNs};` });
  answer.number += 1;
}

function end(answer, slot) {
  if (!slots[slot].delete(answer)) return;
  running -= 1;
  if (running === 0) {
    clearInterval(timer);
    timer = null;
  }
}

function wake() {
  const nowTick = process.hrtime.bigint() / SLOT_NS;
  const from = nowTick - lastTick > 20n ? nowTick - 20n : lastTick;
  for (let tick = from + 1n; tick <= nowTick; tick += 1n) {
    const slot = Number(tick % 20n);
    for (const answer of slots[slot]) {
      while (answer.tick <= nowTick && answer.number < answer.total) {
        say(answer, answer.tick * SLOT_NS);
        answer.tick += 20n;
      }
      if (answer.number >= answer.total) {
        answer.send({ type: "complete", request_id: "7f3c", seq: answer.total + 1, content: null });
        end(answer, slot);
      }
    }
  }
  lastTick = nowTick;
}
