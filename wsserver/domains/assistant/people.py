"""What people in films are called: in the credits, in Chinese, and for short."""

from collections import ChainMap, Counter
from collections.abc import Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, field

from storage.film_names import is_ideograph, key, tokens
from wsserver.domains.assistant.words import ORDINARY

SHORTEST_SURNAME = 4
"""Letters: shorter surnames (Lee, Law, Fox) belong to too many people and words."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, by the name of the credits. `keys` are all the keys that the credits may have them under."""

    name: str
    keys: tuple[str, ...] = field(compare=False)


class PeopleNames:
    """The names by which people are asked for, built once; `chinese` maps names of the credits to Chinese ones."""

    def __init__(self, chinese: Mapping[str, Sequence[str]]) -> None:
        self._chinese = {name: names[0] for name, names in chinese.items() if names}
        self._by_key: MutableMapping[str, Person] = {}
        surnames: dict[str, Person] = {}
        bearers: Counter[str] = Counter()
        for name, aliases in chinese.items():
            person = Person(name, tuple(key(spelling) for spelling in (name, *aliases)))
            self._by_key.update(dict.fromkeys(person.keys, person))
            for surname in {_surname(name), *(_chinese_surname(alias) for alias in aliases[:1])} - {""}:
                surnames[surname] = person
                bearers[surname] += 1
        # A surname is somebody's only while no one else of the lexicon has it.
        for surname, person in surnames.items():
            if bearers[surname] == 1:
                self._by_key.setdefault(surname, person)

    def knowing(self, people: Sequence[Person]) -> "PeopleNames":
        """These names and those of some more people, who are asked for by all their keys."""
        more = copy(self)
        more._by_key = ChainMap({name_key: person for person in people for name_key in person.keys}, self._by_key)
        return more

    def find(self, name_key: str) -> Person | None:
        """Who is called that, full name, Chinese name, nickname or surname."""
        return self._by_key.get(name_key)

    def credited(self, name_key: str, name: str) -> Person:
        """Who stands in the credits under this key and name."""
        return self._by_key.get(name_key) or Person(name, (name_key,))

    def in_chinese(self, name: str) -> str:
        """The name to show in a Chinese sentence."""
        return self._chinese.get(name, name)


def _surname(name: str) -> str:
    last = tokens(name)[-1].key if " " in name else ""
    return last if len(last) >= SHORTEST_SURNAME and last not in ORDINARY else ""


def _chinese_surname(alias: str) -> str:
    first, separator, last = alias.rpartition("·")
    return key(last) if separator and first and len(last) >= 3 and all(map(is_ideograph, last)) else ""
