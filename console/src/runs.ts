/** What is known of one answer while it is made: pure functions from what was known and a frame to what is known now. */

import { type Frame, type Message, type Recommendations, type Usage, as } from "./wire";

/** How a frame came: as it was made, or afterwards because it had been missed. */
export type Way = "live" | "replayed";

/** Frames one after another that came the same way. */
export interface Stretch {
  from: number;
  to: number;
  way: Way;
}

/** One absence: what was missed, and what came of it. Times are epoch milliseconds. */
export interface Absence {
  afterSeq: number;
  cutAt: number;
  /** When the server said where the run stands; null while away. */
  backAt: number | null;
  /** The last seq that there was on the return. */
  lastSeq: number;
  replayed: number;
  replayedAt: number | null;
  recovered: boolean;
}

export interface Run {
  /** The `id` of the message that asked; sent again with it, the server answers the same run. */
  key: string;
  request: Message;
  requestId: string | null;
  phase: "asked" | "running" | "complete" | "failed";
  text: string;
  lastSeq: number;
  stretches: Stretch[];
  absences: Absence[];
  /** Frames that came although they had come before; they are left out. */
  doubled: number;
  stages: string[];
  films: Recommendations | null;
  messageId: string | null;
  finish: string | null;
  /** Whether the pieces are together what `complete` says the whole answer is; null until then. */
  agrees: boolean | null;
  usage: Usage | null;
  error: Frame | null;
  restarts: number;
  askedAt: number;
  firstAt: number | null;
  endedAt: number | null;
}

export function asked(key: string, request: Message, now: number): Run {
  return {
    key,
    request,
    requestId: null,
    phase: "asked",
    text: "",
    lastSeq: 0,
    stretches: [],
    absences: [],
    doubled: 0,
    stages: [],
    films: null,
    messageId: null,
    finish: null,
    agrees: null,
    usage: null,
    error: null,
    restarts: 0,
    askedAt: now,
    firstAt: null,
    endedAt: null,
  };
}

export function isOver(run: Run): boolean {
  return run.phase === "complete" || run.phase === "failed";
}

/** The server took the question. */
export function accepted(run: Run, requestId: string): Run {
  return { ...run, requestId, phase: run.phase === "asked" ? "running" : run.phase };
}

/** The connection went away in the middle. */
export function left(run: Run, now: number): Run {
  const last = run.absences.at(-1);
  if (isOver(run) || (last !== undefined && last.backAt === null)) return run;
  const absence = { afterSeq: run.lastSeq, cutAt: now, backAt: null, lastSeq: run.lastSeq, replayed: 0, replayedAt: null, recovered: true };
  return { ...run, absences: [...run.absences, absence] };
}

/** `resume_response`: where the run stands. After the window the stored message is in it, and no frame follows. */
export function resumed(run: Run, frame: Frame, now: number): Run {
  const where = as<{ recovered: boolean; last_seq: number; message?: { id: string; content: string; finish_reason: string | null } }>(frame.data);
  const last = run.absences.at(-1);
  const absences = last === undefined ? [] : [...run.absences.slice(0, -1), { ...last, backAt: now, lastSeq: where.last_seq, recovered: where.recovered }];
  if (where.recovered) return { ...run, phase: isOver(run) ? run.phase : "running", absences };
  const stored = where.message;
  return {
    ...run,
    absences,
    phase: stored === undefined ? "failed" : "complete",
    text: stored?.content ?? run.text,
    messageId: stored?.id ?? null,
    finish: stored?.finish_reason ?? null,
    endedAt: now,
  };
}

/** Whether frames are missing before this one; only a `restart` may jump. */
export function skips(run: Run, frame: Frame): boolean {
  return frame.seq !== undefined && frame.type !== "restart" && frame.seq > run.lastSeq + 1;
}

/** A frame of the run itself. */
export function took(run: Run, frame: Frame, now: number): Run {
  if (frame.seq === undefined) return frame.type === "error" ? failed(run, frame, now) : run;
  if (frame.seq <= run.lastSeq) return { ...run, doubled: run.doubled + 1 };
  const noted = note(run, frame.seq, now);
  switch (frame.type) {
    case "chunk":
      return { ...noted, text: noted.text + as<string>(frame.content), firstAt: noted.firstAt ?? now };
    case "status":
      return { ...noted, stages: [...noted.stages, as<{ stage: string }>(frame.content).stage] };
    case "recommendations":
      return { ...noted, films: as<Recommendations>(frame.content) };
    case "restart":
      return { ...noted, text: "", restarts: noted.restarts + 1 };
    case "retract":
      return { ...noted, text: "" };
    case "complete":
      return {
        ...noted,
        phase: "complete",
        text: frame.answer ?? noted.text,
        agrees: frame.answer === noted.text,
        messageId: frame.message_id ?? null,
        finish: frame.finish_reason ?? null,
        usage: frame.usage ?? null,
        endedAt: now,
      };
    case "error":
      return failed(noted, frame, now);
    default:
      return noted;
  }
}

export function failed(run: Run, error: Frame, now: number): Run {
  return { ...run, phase: "failed", error, endedAt: now };
}

function note(run: Run, seq: number, now: number): Run {
  const absence = run.absences.at(-1);
  const way: Way = absence !== undefined && absence.backAt !== null && seq <= absence.lastSeq ? "replayed" : "live";
  const last = run.stretches.at(-1);
  const goesOn = last !== undefined && last.way === way && last.to === seq - 1;
  const stretches = goesOn ? [...run.stretches.slice(0, -1), { ...last, to: seq }] : [...run.stretches, { from: seq, to: seq, way }];
  const absences =
    way === "replayed" && absence !== undefined
      ? [...run.absences.slice(0, -1), { ...absence, replayed: absence.replayed + 1, replayedAt: now }]
      : run.absences;
  return { ...run, lastSeq: seq, stretches, absences };
}
