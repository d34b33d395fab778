/** The frames of an answer as a strip: one place for each seq, by how it came, with the cuts; and what was missed. */

import { span } from "./format";
import { text } from "./preferences";
import type { Absence, Run } from "./runs";

const CELL_PX = 9;

export function Ribbon({ run }: { run: Run }) {
  const words = text();
  const away = run.absences.at(-1);
  const isBehind = away !== undefined && away.backAt !== null && away.lastSeq > run.lastSeq;
  const length = Math.max(run.lastSeq, isBehind ? away.lastSeq : 0, 1);
  const replayed = run.stretches.filter((one) => one.way === "replayed").reduce((sum, one) => sum + one.to - one.from + 1, 0);
  // A few frames do not fill the width: each has the same, as long as there is room.
  const width = { width: `${length * CELL_PX}px` };
  const cuts = run.absences.filter((absence) => absence.afterSeq > 0);
  // With many frames a gap between all of them would leave nothing of them.
  const gap = length <= 90 ? 0.18 : 0;
  const cell = (seq: number, way: string) => <rect key={seq} class={way} x={seq - 1 + gap / 2} y="0" width={1 - gap} height="10" />;
  return (
    <div class="ribbon">
      <div class="cells" style={width}>
      <svg viewBox={`0 0 ${length} 10`} preserveAspectRatio="none" role="img" aria-label={words.ribbon(run.lastSeq, replayed)}>
        <rect class="none" x="0" y="0" width={length} height="10" />
        {run.stretches.flatMap((one) =>
          gap === 0
            ? [<rect key={one.from} class={one.way} x={one.from - 1} y="0" width={one.to - one.from + 1} height="10" />]
            : Array.from({ length: one.to - one.from + 1 }, (_, at) => cell(one.from + at, one.way)),
        )}
      </svg>
      {cuts.length > 0 && (
        <div class="cuts" aria-hidden="true">
          {cuts.map((absence) => (
            <span key={absence.cutAt} style={{ left: `${(absence.afterSeq / length) * 100}%` }} />
          ))}
        </div>
      )}
      </div>
      {replayed > 0 && (
        <p class="legend">
          <span class="key live">{words.live}</span>
          <span class="key replayed">{words.replayed}</span>
          <span class="key mark">{words.cutMark}</span>
        </p>
      )}
    </div>
  );
}

export function Absences({ absences }: { absences: readonly Absence[] }) {
  if (absences.length === 0) return null;
  return (
    <ul class="absences">
      {absences.map((absence) => (
        <li key={absence.cutAt}>{said(absence)}</li>
      ))}
    </ul>
  );
}

function said(absence: Absence): string {
  const words = text();
  if (absence.backAt === null) return words.gone(absence.afterSeq);
  const missed = absence.lastSeq - absence.afterSeq;
  const parts = [words.back(absence.afterSeq, span(absence.backAt - absence.cutAt), Math.max(missed, 0))];
  if (!absence.recovered) parts.push(words.notRecovered);
  else if (missed <= 0) parts.push(words.nothingMissed);
  else if (absence.replayedAt !== null) {
    const took = span(absence.replayedAt - absence.backAt);
    parts.push(words.allReplayed(absence.afterSeq + 1, absence.afterSeq + absence.replayed, absence.replayed, took));
  }
  return parts.join(" · ");
}
