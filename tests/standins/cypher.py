"""A graph in memory that understands as much Cypher as CineWire says, and refuses all else.

Written from Neo4j's Cypher manual: a clause is done with all rows before the next one begins, null is neither equal nor
unequal to anything, MERGE finds or makes, DELETE refuses a node that still has relations. It knows neither locks nor
plans, and is no proof of what a Neo4j does. `changes` counts what really became different.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TOKENS = re.compile(
    r"\s+|//[^\n]*|(?P<text>'(?:[^'\\]|\\.)*')|(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign><>|\+=|->|[-+=<>()\[\]{}:,.|$*])",
    re.DOTALL,
)
ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
CONSTRAINT = re.compile(r"CREATE CONSTRAINT (\w+) IF NOT EXISTS FOR \(n:(\w+)\) REQUIRE n\.(\w+) IS UNIQUE")

Row = dict[str, Any]
Expression = Callable[[Row], Any]


class CypherError(AssertionError):
    """What Neo4j would refuse, or what is not understood here."""


@dataclass(eq=False, slots=True)
class Node:
    label: str
    properties: dict[str, Any] = field(default_factory=dict)
    relations: "set[Relation]" = field(default_factory=set, repr=False)


@dataclass(eq=False, slots=True)
class Relation:
    kind: str
    start: Node
    end: Node
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Graph:
    nodes: set[Node] = field(default_factory=set)
    unique: dict[tuple[str, str], dict[Any, Node]] = field(default_factory=dict)
    changes: int = 0

    def run(self, text: str, parameters: Mapping[str, Any]) -> None:
        """Obey one statement."""
        if text.lstrip().startswith("CREATE CONSTRAINT"):
            made = CONSTRAINT.fullmatch(text.strip())
            if not made:
                raise CypherError(f"no constraint: {text}")
            self._constrain(made[2], made[3])
        else:
            _Statement(self, text, parameters).run()

    def all(self, label: str) -> list[Node]:
        return [node for node in self.nodes if node.label == label]

    def one(self, label: str, **properties: Any) -> Node | None:
        found = [node for node in self.all(label) if properties.items() <= node.properties.items()]
        assert len(found) <= 1, "more than one"
        return found[0] if found else None

    def shape(self) -> set[str]:
        """All nodes and relations as text: equal when the graphs are."""
        said = {f"{node.label} {sorted(node.properties.items())}" for node in self.nodes}
        return said | {
            f"{_id(each.start)} {each.kind} {sorted(each.properties.items())} {_id(each.end)}"
            for node in self.nodes
            for each in node.relations
        }

    # ---- changes ----

    def add(self, label: str, properties: Mapping[str, Any]) -> Node:
        node = Node(label)
        self.nodes.add(node)
        self.changes += 1
        for name, value in properties.items():
            self.set(node, name, value)
        return node

    def relate(self, kind: str, start: Node, end: Node, properties: Mapping[str, Any]) -> Relation:
        made = Relation(kind, start, end, dict(properties))
        start.relations.add(made)
        end.relations.add(made)
        self.changes += 1
        return made

    def set(self, thing: Node | Relation, name: str, value: Any) -> None:
        if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(v, list | dict) for v in value)):
            raise CypherError("a property is a scalar or a list of scalars")
        old = thing.properties.get(name)
        if old == value and type(old) is type(value):
            return
        self.changes += 1
        index = self.unique.get((thing.label, name)) if isinstance(thing, Node) else None
        if index is not None and isinstance(thing, Node):
            if value is not None and index.get(value, thing) is not thing:
                raise CypherError(f"{thing.label}.{name} {value!r} is there already")
            index.pop(old, None)
            if value is not None:
                index[value] = thing
        if value is None:
            thing.properties.pop(name, None)
        else:
            thing.properties[name] = value

    def delete(self, thing: Node | Relation, *, detach: bool) -> None:
        if isinstance(thing, Relation):
            self.changes += thing in thing.start.relations
            thing.start.relations.discard(thing)
            thing.end.relations.discard(thing)
            return
        if thing not in self.nodes:
            return
        if thing.relations and not detach:
            raise CypherError("a node that has relations is not deleted without them")
        for relation in list(thing.relations):
            self.delete(relation, detach=False)
        for name in list(thing.properties):
            self.set(thing, name, None)
        self.nodes.discard(thing)
        self.changes += 1

    def _constrain(self, label: str, name: str) -> None:
        if (label, name) not in self.unique:
            self.changes += 1
            held = [node for node in self.all(label) if name in node.properties]
            self.unique[label, name] = {node.properties[name]: node for node in held}
            if len(self.unique[label, name]) < len(held):
                raise CypherError("the constraint is broken already")


def _id(node: Node) -> str:
    names = ("key", "tmdb_id", "id", "entity")
    return f"{node.label} {next(node.properties[name] for name in names if name in node.properties)}"


@dataclass(frozen=True, slots=True)
class _NodePattern:
    variable: str
    label: str
    properties: Mapping[str, Expression]


@dataclass(frozen=True, slots=True)
class _Path:
    start: _NodePattern
    variable: str
    kinds: Sequence[str]
    properties: Mapping[str, Expression]
    end: _NodePattern


class _Statement:
    """One statement, read and obeyed clause by clause."""

    def __init__(self, graph: Graph, text: str, parameters: Mapping[str, Any]) -> None:
        self.graph = graph
        self.parameters = parameters
        self.tokens = _tokens(text)
        self.at = 0
        self.rows: list[Row] = [{}]

    def run(self) -> None:
        clauses = {"UNWIND": self.unwind, "MATCH": self.match, "MERGE": self.merge, "SET": self.set}
        clauses |= {"REMOVE": self.remove, "DELETE": self.delete, "DETACH": self.detach, "WITH": self.with_}
        while self.at < len(self.tokens):
            word = self.next()
            if word not in clauses:
                raise CypherError(f"no clause that is understood: {word}")
            clauses[word]()

    # ---- tokens ----

    def peek(self, ahead: int = 0) -> Any:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None

    def next(self) -> Any:
        self.at += 1
        return self.tokens[self.at - 1]

    def took(self, *words: str) -> bool:
        if tuple(self.tokens[self.at : self.at + len(words)]) == words:
            self.at += len(words)
            return True
        return False

    def expect(self, *words: str) -> None:
        if not self.took(*words):
            raise CypherError(f"expected {' '.join(words)} at {self.tokens[self.at : self.at + 6]}")

    # ---- clauses ----

    def unwind(self) -> None:
        listed = self.expression()
        self.expect("AS")
        name = self.next()
        self.rows = [{**row, name: each} for row in self.rows for each in listed(row) or ()]

    def match(self) -> None:
        pattern = self.pattern()
        self.rows = [found for row in self.rows for found in self.found(pattern, row)]
        self.where()

    def where(self) -> None:
        if self.took("WHERE"):
            condition = self.expression()
            self.rows = [row for row in self.rows if condition(row) is True]

    def with_(self) -> None:
        distinct = self.took("DISTINCT")
        names = [self.next()]
        while self.took(","):
            names.append(self.next())
        kept = [{name: row[name] for name in names} for row in self.rows]
        if distinct:
            kept = list({tuple(id(value) for value in row.values()): row for row in kept}.values())
        self.rows = kept
        self.where()

    def merge(self) -> None:
        pattern = self.pattern()
        on_create = self.items() if self.took("ON", "CREATE", "SET") else []
        for row in self.rows:
            found = list(self.found(pattern, row))
            if len(found) > 1:
                raise CypherError("MERGE found more than one: nothing here should")
            if found:
                row.update(found[0])
                continue
            self.make(pattern, row)
            for item in on_create:
                item(row)

    def make(self, pattern: "_NodePattern | _Path", row: Row) -> None:
        values = {name: value(row) for name, value in pattern.properties.items()}
        if None in values.values():
            raise CypherError("MERGE with null")
        made: Node | Relation
        if isinstance(pattern, _NodePattern):
            made = self.graph.add(pattern.label, values)
        else:
            made = self.graph.relate(pattern.kinds[0], row[pattern.start.variable], row[pattern.end.variable], values)
        if pattern.variable:
            row[pattern.variable] = made

    def set(self) -> None:
        items = self.items()
        for row in self.rows:
            for item in items:
                item(row)

    def items(self) -> list[Callable[[Row], None]]:
        items = [self.item()]
        while self.took(","):
            items.append(self.item())
        return items

    def item(self) -> Callable[[Row], None]:
        variable = self.next()
        if self.took("+="):
            values = self.expression()

            def add(row: Row) -> None:
                for name, value in values(row).items():
                    self.graph.set(row[variable], name, value)

            return add
        self.expect(".")
        name = self.next()
        self.expect("=")
        value = self.expression()
        return lambda row: self.graph.set(row[variable], name, value(row))

    def remove(self) -> None:
        variable = self.next()
        self.expect(".")
        name = self.next()
        for row in self.rows:
            self.graph.set(row[variable], name, None)

    def detach(self) -> None:
        self.expect("DELETE")
        self.delete(detach=True)

    def delete(self, *, detach: bool = False) -> None:
        variable = self.next()
        for row in self.rows:
            self.graph.delete(row[variable], detach=detach)

    # ---- patterns ----

    def pattern(self) -> "_NodePattern | _Path":
        start = self.node_pattern()
        if not self.took("-", "["):
            return start
        variable = "" if self.peek() == ":" else self.next()
        self.expect(":")
        kinds = [self.next()]
        while self.took("|"):
            kinds.append(self.next())
        properties = self.properties()
        self.expect("]", "->")
        return _Path(start, variable, kinds, properties, self.node_pattern())

    def node_pattern(self) -> _NodePattern:
        self.expect("(")
        variable = "" if self.peek() in {":", ")"} else self.next()
        label = self.next() if self.took(":") else ""
        properties = self.properties()
        self.expect(")")
        return _NodePattern(variable, label, properties)

    def properties(self) -> Mapping[str, Expression]:
        return self.map_items() if self.took("{") else {}

    def map_items(self) -> dict[str, Expression]:
        items: dict[str, Expression] = {}
        while not self.took("}"):
            name = self.next()
            self.expect(":")
            items[name] = self.expression()
            self.took(",")
        return items

    def found(self, pattern: "_NodePattern | _Path", row: Row) -> list[Row]:
        if isinstance(pattern, _NodePattern):
            return [_with(row, pattern.variable, node) for node in self.nodes(pattern, row)]
        ends = set(self.nodes(pattern.end, row))
        wanted = {name: value(row) for name, value in pattern.properties.items()}
        return [
            _with(
                _with(_with(row, pattern.variable, each), pattern.start.variable, each.start), pattern.end.variable, end
            )
            for end in ends
            for each in sorted(end.relations, key=id)
            if each.end is end
            and each.kind in pattern.kinds
            and wanted.items() <= each.properties.items()
            and self.fits(pattern.start, each.start, row)
        ]

    def nodes(self, pattern: _NodePattern, row: Row) -> list[Node]:
        if pattern.variable in row:
            return [row[pattern.variable]]
        for name, value in pattern.properties.items():
            if (index := self.graph.unique.get((pattern.label, name))) is not None:
                node = index.get(value(row))
                return [node] if node and self.fits(pattern, node, row) else []
        return [node for node in self.graph.nodes if self.fits(pattern, node, row)]

    @staticmethod
    def fits(pattern: _NodePattern, node: Node, row: Row) -> bool:
        if pattern.variable in row:
            return row[pattern.variable] is node
        return pattern.label in {"", node.label} and all(
            node.properties.get(name) == value(row) is not None for name, value in pattern.properties.items()
        )

    # ---- expressions, the loosest first ----

    def expression(self) -> Expression:
        left = self.negation()
        while self.took("AND"):
            left = _both(left, self.negation())
        return left

    def negation(self) -> Expression:
        if self.took("NOT"):
            inner = self.negation()
            return lambda row: None if (value := inner(row)) is None else not value
        return self.comparison()

    def comparison(self) -> Expression:
        left = self.sum()
        if self.took("IS", "NULL"):
            return lambda row: left(row) is None
        if self.took("IN"):
            listed = self.sum()
            return _unless_null(left, listed, lambda one, many: one in many)
        for sign, compare in _COMPARISONS.items():
            if self.took(sign):
                return _unless_null(left, self.sum(), compare)
        return left

    def sum(self) -> Expression:
        left = self.primary()
        while self.took("+"):
            left = _unless_null(left, self.primary(), lambda one, other: one + other)
        return left

    def primary(self) -> Expression:  # noqa: PLR0911 - one for each form
        if self.peek() == "(" and self.tokens[self.at + 2 : self.at + 7] == [")", "-", "-", "(", ")"]:
            variable = self.peek(1)
            self.at += 7
            return lambda row: bool(row[variable].relations)
        if self.took("("):
            inner = self.expression()
            self.expect(")")
            return inner
        if self.took("["):
            items: list[Expression] = []
            while not self.took("]"):
                items.append(self.expression())
                self.took(",")
            return lambda row: [item(row) for item in items]
        if self.took("{"):
            mapped = self.map_items()
            return lambda row: {name: value(row) for name, value in mapped.items()}
        if self.took("$"):
            parameter = self.parameters[self.next()]
            return lambda _row: parameter
        if self.took("-"):
            number = self.next()
            return lambda _row: -number.value
        if self.took("CASE", "WHEN"):
            return self.case()
        token = self.next()
        if isinstance(token, _Literal):
            return lambda _row: token.value
        if token in _CONSTANTS:
            return lambda _row: _CONSTANTS[token]
        if self.took("("):
            return self.call(token)
        if self.took("."):
            name = self.next()
            return lambda row: _property(row[token], name)
        return lambda row: row[token]

    def case(self) -> Expression:
        condition = self.expression()
        self.expect("THEN")
        then = self.expression()
        self.expect("ELSE")
        otherwise = self.expression()
        self.expect("END")
        return lambda row: then(row) if condition(row) is True else otherwise(row)

    def call(self, name: str) -> Expression:
        arguments = [self.expression()]
        while self.took(","):
            arguments.append(self.expression())
        self.expect(")")
        if name == "coalesce":
            return lambda row: next((value for each in arguments if (value := each(row)) is not None), None)
        if name == "type":
            return lambda row: arguments[0](row).kind
        raise CypherError(f"no function that is understood: {name}")


@dataclass(frozen=True, slots=True)
class _Literal:
    value: Any


_CONSTANTS = {"null": None, "true": True, "false": False}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: one == other,
    "<>": lambda one, other: one != other,
    ">": lambda one, other: one > other,
}


def _tokens(text: str) -> list[Any]:
    tokens: list[Any] = []
    at = 0
    while at < len(text):
        found = TOKENS.match(text, at)
        if not found:
            raise CypherError(f"no token: {text[at : at + 30]!r}")
        at = found.end()
        if (quoted := found["text"]) is not None:
            tokens.append(_Literal(re.sub(r"\\(.)", lambda escape: ESCAPES[escape[1]], quoted[1:-1], flags=re.DOTALL)))
        elif (number := found["number"]) is not None:
            tokens.append(_Literal(float(number) if re.search("[.e]", number) else int(number)))
        elif (other := found["name"] or found["sign"]) is not None:
            tokens.append(other)
    return tokens


def _with(row: Row, variable: str, value: Any) -> Row:
    return {**row, variable: value} if variable else row


def _property(thing: Any, name: str) -> Any:
    return (thing if isinstance(thing, Mapping) else thing.properties).get(name)


def _both(left: Expression, right: Expression) -> Expression:
    def both(row: Row) -> Any:
        values = (left(row), right(row))
        return False if False in values else None if None in values else True

    return both


def _unless_null(left: Expression, right: Expression, apply: Callable[[Any, Any], Any]) -> Expression:
    def apply_unless_null(row: Row) -> Any:
        one, other = left(row), right(row)
        return None if one is None or other is None else apply(one, other)

    return apply_unless_null
