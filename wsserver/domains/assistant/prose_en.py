"""Answers about films in English."""

from collections.abc import Sequence

from protocol.movies import MovieDetail
from storage.film_filter import Film, Order, Role
from wsserver.domains.assistant.prose import CREW_JOBS
from wsserver.domains.assistant.questions import Question
from wsserver.domains.assistant.words import GENRE_NAMES, LANGUAGE_NAMES, Aspect

ANY_FILM = "films"

_ORDERS = {
    Order.BEST: "The best rated",
    Order.WORST: "The lowest rated",
    Order.POPULAR: "Popular",
    Order.NEWEST: "The latest",
    Order.OLDEST: "The oldest",
    Order.LONGEST: "The longest",
    Order.SHORTEST: "The shortest",
}
_MISSING = {
    Aspect.DIRECTOR: "director",
    Aspect.CAST: "cast",
    Aspect.DATE: "release date",
    Aspect.RUNTIME: "running time",
    Aspect.RATING: "rating",
    Aspect.GENRE: "genres",
    Aspect.PLOT: "plot",
    Aspect.LANGUAGE: "language",
    Aspect.WRITER: "writers",
    Aspect.MUSIC: "composer",
    Aspect.PHOTOGRAPHY: "cinematographer",
}
_ROLES = {Role.DIRECTOR: "directed by", Role.CAST: "starring", Role.ANY: "with"}
_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905


class English:
    """Implements `prose.Prose`."""

    greeting = (
        "Hello! I am the catalogue assistant: I look up and find films by title, director, actor, genre and year. "
        "Try “science fiction films directed by Christopher Nolan”."
    )
    thanks = "You're welcome! Ask me whenever you want something to watch."
    ready = "All right. Ask me whenever you want something to watch."
    goodbye = "Goodbye, and enjoy your film!"
    abilities = (
        "I am the catalogue assistant, not a language model: I read questions about films by rules and answer only "
        "from the catalogue.\nYou can ask for:\n"
        "- a film's director, cast, release date, running time, rating, genres and plot: who directed Inception?\n"
        "- films by genre, year, director, actor, language, length and rating: best sci-fi movies from the 1990s\n"
        "- recommendations: three popular comedies, films like Inception; and then: any more? who directed it?"
    )
    not_understood = (
        "I don't know how to answer that. I am not a language model: I only answer questions about films from the "
        "catalogue, for example: tell me about Inception; sci-fi movies from the 1990s; films directed by Nolan."
    )
    which_film = "Which film do you mean? Tell me its title, or say “the first one”, “the second one”."
    which_person = "Whom do you mean? Tell me the director's or actor's name."
    nothing_more = "The catalogue has no more films like that. Try another genre, decade or actor?"
    more_hint = "For more of them, ask: any more?"
    recent_is_old = "The catalogue has few films of the last years; these are the most popular ones:\n"

    def title(self, film: Film) -> str:
        return f"“{film.title_en}” ({film.year})" if film.year else f"“{film.title_en}”"

    def names(self, names: Sequence[str]) -> str:
        return _joined(names)

    def card(self, film: Film) -> str:
        kind = f"{_article(genres)} {genres} film" if (genres := self._genres(film)) else "a film"
        by = f" directed by {self.names(film.directors[:3])}" if film.directors else ""
        length = f", {film.runtime} minutes long" if film.runtime else ""
        sentences = [
            f"{self.title(film)} is {kind}{by}{length}.",
            f"It stars {self.names(film.cast_names[:4])}." if film.cast_names else "",
            f"\nPlot: {film.overview_en}" if film.overview_en else "",
            f"\nIt is rated {film.vote_average:.1f} out of 10 ({film.vote_count:,} votes)." if film.vote_count else "",
        ]
        return " ".join(filter(None, sentences)).replace(" \n", "\n")

    def aspect(self, aspect: Aspect, film: Film, detail: MovieDetail | None) -> str:
        title, said = self.title(film), ""
        match aspect:
            case Aspect.DIRECTOR if film.directors:
                said = f"{title} was directed by {self.names(film.directors)}."
            case Aspect.CAST if detail and detail.cast:
                said = f"{title} stars {self._cast(detail)}."
            case Aspect.DATE if film.release_date:
                day = film.release_date
                said = f"{title} was released on {day.day} {_MONTHS[day.month - 1]} {day.year}."
            case Aspect.RUNTIME if film.runtime:
                said = f"{title} is {film.runtime} minutes long{self._hours(film.runtime)}."
            case Aspect.RATING if film.vote_count:
                said = f"{title} is rated {film.vote_average:.1f} out of 10 ({film.vote_count:,} votes)."
            case Aspect.GENRE if film.genre_ids:
                said = f"{title} is {_article(genres := self._genres(film))} {genres} film."
            case Aspect.PLOT if film.overview_en or film.overview:
                said = f"The plot of {title}: {film.overview_en or film.overview}"
            case Aspect.LANGUAGE if film.original_language:
                said = f"The original language of {title} is {_language(film.original_language)}."
            case Aspect.TITLES:
                said = f"{title} is called {film.title} in Chinese; its original title is {film.original_title}."
            case Aspect.WRITER | Aspect.MUSIC | Aspect.PHOTOGRAPHY if detail:
                names = [person.name for person in detail.crew if person.job in CREW_JOBS[aspect]]
                said = f"The {_MISSING[aspect]} of {title}: {self.names(list(dict.fromkeys(names)))}." if names else ""
            case Aspect.UNKNOWN:
                said = f"The catalogue does not know that about {title}."
        return said or f"The catalogue does not have the {_MISSING[aspect]} of {title}."

    def winner(self, aspect: Aspect, film: Film, text: str) -> str:
        if aspect is Aspect.RATING:
            return f"{self.title(film)} is rated higher."
        if aspect is Aspect.RUNTIME:
            return f"{self.title(film)} is longer."
        is_older = any(word in text.lower() for word in ("older", "first", "earlier"))
        return f"{self.title(film)} came out {'earlier' if is_older else 'later'}."

    def item(self, number: int, film: Film) -> str:
        facts = [
            self._genres(film),
            f"directed by {self.names(film.directors[:2])}" if film.directors else "",
            f"{film.runtime} min" if film.runtime else "",
            f"rated {film.vote_average:.1f}" if film.vote_count else "",
        ]
        return f"{number}. {self.title(film)}: {', '.join(filter(None, facts))}"

    def wanted(self, question: Question) -> str:
        asked = question.wanted
        genres = [GENRE_NAMES[genre][1] for genre in asked.genres]
        languages = "Chinese" if len(asked.languages) > 1 else "".join(_language(code) for code in asked.languages)
        parts = [
            languages,
            (" or " if asked.any_genre else " ").join(genres),
            ANY_FILM,
            self._credits(question),
            _years(asked.year_from, asked.year_to),
            f"of at most {asked.longest} minutes" if asked.longest else "",
            f"of at least {asked.shortest} minutes" if asked.shortest else "",
            f"rated {asked.lowest_rating:g} or higher" if asked.lowest_rating is not None else "",
            f"rated {asked.highest_rating:g} or lower" if asked.highest_rating is not None else "",
            f"that are not {_joined([GENRE_NAMES[genre][1] for genre in asked.without_genres])}"
            if asked.without_genres
            else "",
        ]
        return " ".join(filter(None, parts))

    def list_title(self, question: Question) -> str:
        return f"For you: {self._ordered(question)}"

    def list_intro(self, question: Question, found: int, *, is_all: bool) -> str:
        return f"{self._ordered(question)}{' in the catalogue' if is_all else f', {found} of them'}:\n"

    def similar_intro(self, films: Sequence[Film]) -> str:
        return f"Films like {_joined(list(map(self.title, films)))}, by director, cast and genres in common:\n"

    def series_intro(self, name: str, found: int) -> str:
        return f'The catalogue has {found} films that go with "{name}":\n'

    def makers_intro(self, film: Film, names: Sequence[str]) -> str:
        return f"{self.title(film)} is the work of {self.names(names)}; also in the catalogue with them:\n"

    def person_intro(self, names: Sequence[str]) -> str:
        return f"I know nothing of {self.names(names)} but the films in the catalogue:\n"

    def nothing(self, question: Question) -> str:
        wanted = f"upcoming {self.wanted(question)}" if question.upcoming else self.wanted(question)
        return f"The catalogue has no {wanted}. Try another genre, decade or name?"

    def nothing_similar(self, films: Sequence[Film]) -> str:
        return f"The catalogue has nothing like {_joined(list(map(self.title, films)))}."

    def count(self, question: Question, films: int) -> str:
        return f"The catalogue has {films} {self.wanted(question)}."

    def in_film(self, film: Film, name: str, character: str | None, *, is_director: bool, is_cast: bool) -> str:
        if is_cast:
            part = f"plays {character} in" if character else "is in"
            return f"{name} {part} {self.title(film)}{', and directed it' if is_director else ''}."
        if is_director:
            return f"{name} directed {self.title(film)}."
        return f"{name} is not among the director and main cast of {self.title(film)} in the catalogue."

    def only_part(self, asked: str, film: Film) -> str:
        return f'The catalogue has no film called exactly "{asked}"; the closest is {self.title(film)}.\n'

    def namesakes(self, films: Sequence[Film]) -> str:
        return f"\nThe catalogue also has {_joined(list(map(self.title, films)))}."

    def not_in_catalogue(self, asked: str) -> str:
        return f'I don\'t know: "{asked}" is not in the catalogue. Try another title, Chinese, English or original?'

    def did_you_mean(self, asked: str, film: Film) -> str:
        return f'"{asked}" is not in the catalogue. Did you mean “{film.title_en}”?'

    def ignored(self, asked: str) -> str:
        return f'(I cannot search by "{asked}", so it was left out.)\n'

    def no_such_fact(self, asked: str) -> str:
        return f'I know nothing about "{asked}", only this:\n'

    def cannot_filter(self, asked: str) -> str:
        return (
            f'I cannot find films by "{asked}": the catalogue is searched by genre, year, director, actor, language, '
            "length and rating, for example: sci-fi movies from the 1990s."
        )

    def _ordered(self, question: Question) -> str:
        wanted = self.wanted(question)
        if question.upcoming:
            return f"Upcoming {wanted}"
        order = question.order or (Order.POPULAR if wanted == ANY_FILM else None)
        return f"{_ORDERS[order]} {wanted}" if order else wanted[:1].upper() + wanted[1:]

    def _credits(self, question: Question) -> str:
        said: dict[Role, list[str]] = {}
        for person, credit in zip(question.people, question.wanted.credits, strict=False):
            said.setdefault(credit.role, []).append(person.name)
        return " and ".join(f"{_ROLES[role]} {_joined(names)}" for role, names in said.items())

    def _cast(self, detail: MovieDetail) -> str:
        return _joined(
            [member.name + (f" ({member.character})" if member.character else "") for member in detail.cast[:6]]
        )

    def _genres(self, film: Film) -> str:
        return ", ".join(GENRE_NAMES[genre][1] for genre in film.genre_ids if genre in GENRE_NAMES)

    def _hours(self, minutes: int) -> str:
        hours, rest = divmod(minutes, 60)
        return f" ({hours} h{f' {rest} min' if rest else ''})" if hours else ""


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)


def _article(noun: str) -> str:
    return "an" if noun[:1] in "aeiou" else "a"


def _language(code: str) -> str:
    return LANGUAGE_NAMES[code][1] if code in LANGUAGE_NAMES else code


def _years(first: int | None, last: int | None) -> str:
    if first is None and last is None:
        return ""
    if first is None:
        return f"up to {last}"
    if last is None:
        return f"since {first}"
    if first == last:
        return f"from {first}"
    return f"from the {first}s" if first % 10 == 0 and last == first + 9 else f"from {first} to {last}"
