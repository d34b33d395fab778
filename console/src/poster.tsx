/** A film's poster above one that is drawn, which is all there is where none loads: a scene that follows from the film's id. */

import { useState } from "preact/hooks";
import { text } from "./preferences";
import type { MovieCard } from "./wire";

/** Hues of night and of light that go together; white on each of the dark tones has a contrast of more than 7. */
const PAIRS: [number, number][] = [
  [196, 36],
  [222, 28],
  [256, 330],
  [328, 26],
  [352, 40],
  [12, 44],
  [28, 14],
  [174, 46],
  [208, 190],
];

export function Poster({ film }: { film: MovieCard }) {
  const [isBroken, setBroken] = useState(false);
  const url = isBroken ? null : film.poster_url;
  return (
    <div class="poster" title={url === null ? text().noPoster : undefined}>
      <Scene id={film.tmdb_id} />
      <span aria-hidden="true">{film.title}</span>
      {url !== null && <img src={small(url)} alt="" width="342" height="513" loading="lazy" decoding="async" referrerpolicy="no-referrer" onError={() => setBroken(true)} />}
    </div>
  );
}

/** TMDB serves each image in several widths; a card is at most 160 px wide, twice that on a dense screen. */
function small(url: string): string {
  return url.replace("/t/p/w500/", "/t/p/w342/");
}

function Scene({ id }: { id: number }) {
  const [night, light] = PAIRS[id % PAIRS.length] ?? [196, 36];
  const tone = (saturation: number, lightness: number, hue = night) => `hsl(${hue} ${saturation}% ${lightness}%)`;
  const shift = (id * 13) % 40;
  return (
    <svg viewBox="0 0 100 150" preserveAspectRatio="xMidYMid slice" aria-hidden="true">
      <rect width="100" height="150" fill={tone(32, 17)} />
      {drawn(Math.floor(id / 3) % 5, shift, tone(34, 27), tone(38, 38), tone(72, 68, light))}
      <rect y="92" width="100" height="58" fill={tone(40, 9)} opacity=".62" />
    </svg>
  );
}

function drawn(kind: number, shift: number, low: string, middle: string, bright: string) {
  switch (kind) {
    case 0: // a sun above dunes
      return (
        <>
          <circle cx={30 + shift} cy="52" r="17" fill={bright} />
          <path d={`M0 ${84 - shift / 4} Q30 ${62 + shift / 3} 62 84 T100 78 V150 H0Z`} fill={middle} />
          <path d={`M0 104 Q40 ${84 + shift / 3} 100 100 V150 H0Z`} fill={low} />
        </>
      );
    case 1: // a projector's beam
      return (
        <>
          <path d={`M${18 + shift} 20 L-20 150 H70Z`} fill={low} />
          <path d={`M${18 + shift} 20 L30 150 H120Z`} fill={middle} />
          <circle cx={18 + shift} cy="20" r="6" fill={bright} />
        </>
      );
    case 2: // a lens
      return (
        <>
          {[44, 33, 22].map((radius, at) => (
            <circle key={radius} cx="50" cy={58 + shift / 5} r={radius} fill={at % 2 === 0 ? low : middle} />
          ))}
          <circle cx={46 + shift / 6} cy={52 + shift / 5} r="9" fill={bright} />
        </>
      );
    case 3: // a skyline
      return (
        <>
          <circle cx={74 - shift} cy="34" r="10" fill={bright} />
          {[0, 1, 2, 3, 4, 5].map((at) => {
            const height = 38 + ((shift * (at + 3) * 7) % 46);
            return <rect key={at} x={at * 17 - 1} y={120 - height} width="15" height={height + 40} fill={at % 2 === 0 ? low : middle} />;
          })}
        </>
      );
    default: // a road to the horizon
      return (
        <>
          <rect y="74" width="100" height="76" fill={low} />
          <path d={`M${44 + shift / 5} 74 L-10 150 H110 L${48 + shift / 5} 74Z`} fill={middle} />
          <circle cx={26 + shift} cy="62" r="12" fill={bright} />
          <rect y="74" width="100" height="2" fill={bright} />
        </>
      );
  }
}
