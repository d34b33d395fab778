/** The films that an answer recommends, as cards, with the notice that TMDB's terms ask for. */

import { useEffect, useState } from "preact/hooks";
import type { Client } from "./client";
import type { Conversation } from "./conversation";
import { Poster } from "./poster";
import { text } from "./preferences";
import { useStore } from "./store";
import type { MovieCard, Recommendations } from "./wire";
import { TMDB_NOTICE } from "./words";

/** Two rows on most screens. */
const FIRST = 8;

export function Films({ client, conversation, films }: { client: Client; conversation: Conversation; films: Recommendations }) {
  const words = text();
  const cards = useStore(conversation.films);
  const isOpen = useStore(client.link).phase === "open" && useStore(client.account) !== null;
  const [showsAll, setShowsAll] = useState(false);
  useEffect(() => {
    if (isOpen) void conversation.look(films.tmdb_ids);
  }, [films, isOpen]);
  const shown = showsAll ? films.tmdb_ids : films.tmdb_ids.slice(0, FIRST);
  return (
    <section class="films" aria-label={words.films}>
      <h4>{films.title || words.films}</h4>
      <ul>
        {shown.map((id) => (
          <li key={id}>
            <Card id={id} film={cards.get(id)} />
          </li>
        ))}
      </ul>
      {shown.length < films.tmdb_ids.length && (
        <button type="button" class="quiet" onClick={() => setShowsAll(true)}>
          {words.more(films.tmdb_ids.length - shown.length)}
        </button>
      )}
      <p class="notice">
        <span lang="en">{TMDB_NOTICE}</span> {words.tmdb}
      </p>
    </section>
  );
}

function Card({ id, film }: { id: number; film: MovieCard | null | undefined }) {
  const words = text();
  if (film === undefined) return <div class="film pending" aria-busy="true" />;
  if (film === null)
    return (
      <div class="film">
        <div class="poster unknown" />
        <strong>{words.unknownFilm}</strong>
        <span class="dim number">{id}</span>
      </div>
    );
  return (
    <article class="film" aria-label={film.title}>
      <Poster film={film} />
      <strong>{film.title}</strong>
      <span class="facts">
        {film.year !== null && <span class="number">{film.year}</span>}
        <span class="number" title={words.votes(film.vote_count)}>
          {film.vote_average.toFixed(1)}
        </span>
      </span>
      <span class="dim">{film.directors.slice(0, 2).join(", ") || film.genres.slice(0, 2).join(", ")}</span>
    </article>
  );
}
