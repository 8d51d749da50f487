"""Filters on metadata, such as `price < 20000 and year >= 2018`: text -> a condition of SQLite with bound values.

The grammar is in docs/filters.md. What a client writes becomes bound values only; columns become c0, c1, ...
"""

import math
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from typing import NamedTuple, cast

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from indexer.metadata import INT64, Column, Value, is_date
from model.errors import InvalidFilter

MAX_LENGTH = 500
"""Characters of a filter, which bounds the number of its comparisons too."""

MAX_DEPTH = 20
COLUMNS_TOLD = 20
HOLDS = {
    "number": "numbers; compare it with one, as in {} < 20000",
    "date": "dates; compare it with one, as in {} >= 2018-12-31",
    "text": "text; compare it with text in quotes, as in {} = 'red'",
}
GRAMMAR = r"""
?start: any
?any: all | all (_OR all)+ -> any_of
?all: not | not (_AND not)+ -> all_of
?not: _NOT not -> negation
    | NAME OPERATOR (NUMBER | DATE | TEXT) -> comparison
    | "(" any ")"

_OR.2: /or(?![^\s()<>=!'"])/i
_AND.2: /and(?![^\s()<>=!'"])/i
_NOT.2: /not(?![^\s()<>=!'"])/i
NAME: /[^\s()<>=!'"]+/
OPERATOR: "=" | "!=" | "<" | "<=" | ">" | ">="
NUMBER: /[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?/
DATE.2: /[0-9]{4}-[0-9]{2}-[0-9]{2}/
TEXT: /'([^']|'')*'|"([^"]|"")*"/
%ignore /\s+/
"""


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="contextual")


class Condition(NamedTuple):
    """A condition of SQLite over c0, c1, ..., the values of its question marks, and how deep it is nested."""

    sql: str
    values: tuple[Value, ...]
    depth: int = 1


def condition(text: str, columns: Sequence[Column]) -> Condition:
    """The condition that a filter stands for; raises InvalidFilter.

    As in SQL a comparison with an empty cell is neither true nor false, and neither is its negation: such photos pass
    only where another part of an `or` is true.
    """
    if not columns:
        raise InvalidFilter("The gallery has no metadata to filter by; a CSV file with more columns gives it some.")
    if len(text) > MAX_LENGTH:
        raise InvalidFilter(f"A filter has at most {MAX_LENGTH} characters, and this one has {len(text)}.")
    text = unicodedata.normalize("NFC", text)
    try:
        made: Condition = _Conditions(columns).transform(_parser().parse(text))
    except UnexpectedInput as problem:
        raise InvalidFilter(_misread(problem)) from None
    except VisitError as problem:
        raise problem.orig_exc from None
    if made.depth > MAX_DEPTH:  # SQLite's own parser ends at about twice as many
        raise InvalidFilter(f"The filter is nested more than {MAX_DEPTH} deep.")
    return made


def _misread(problem: UnexpectedInput) -> str:
    """Where a filter stops making sense; what a client wrote is not repeated."""
    place, hint = 0, ""
    if isinstance(problem, UnexpectedToken):
        if problem.token.type == "$END":
            return "The filter ends too early."
        place = problem.token.start_pos or 0
        hint = "; a number, a date or text in quotes belongs there" if "TEXT" in problem.accepts else ""
    elif isinstance(problem, UnexpectedCharacters):
        place = cast(int, problem.pos_in_stream)
    return f"The filter cannot be read from character {place + 1} on{hint}."


class _Conditions(Transformer[Token, Condition]):
    """Makes conditions of the parts of a filter, from the inside out."""

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self._columns = columns

    def any_of(self, parts: list[Condition]) -> Condition:
        return _joined(" OR ", parts)

    def all_of(self, parts: list[Condition]) -> Condition:
        return _joined(" AND ", parts)

    def negation(self, parts: list[Condition]) -> Condition:
        sql, values, depth = parts[0]
        return Condition(f"NOT ({sql})", values, depth + 1)

    def comparison(self, parts: list[Token]) -> Condition:
        name, operator, written = parts
        position = self._position(name)
        return Condition(f"c{position} {operator.value} ?", (_value(written, self._columns[position]),))

    def _position(self, name: Token) -> int:
        names = [column.name for column in self._columns]
        wanted = name.value.lower()
        if wanted in names:
            return names.index(wanted)
        near = get_close_matches(wanted, names, 1)
        there = ", ".join(names[:COLUMNS_TOLD]) + (", ..." if len(names) > COLUMNS_TOLD else "")
        meant = f"did you mean {near[0]}?" if near else f"there are {there}."
        raise InvalidFilter(f"The gallery has no column of the name at character {(name.start_pos or 0) + 1}; {meant}")


def _joined(word: str, parts: list[Condition]) -> Condition:
    values = tuple(value for part in parts for value in part.values)
    return Condition(f"({word.join(part.sql for part in parts)})", values, 1 + max(part.depth for part in parts))


def _value(written: Token, column: Column) -> Value:
    """The value to bind; raises InvalidFilter when it is not of the column's kind."""
    text: str = written.value
    if written.type == "TEXT":
        text = text[1:-1].replace(2 * text[0], text[0])
    if column.kind == "number" and written.type == "NUMBER":
        value = float(text)
        if not math.isfinite(value):
            raise InvalidFilter("A number of the filter is too large.")
        return int(text) if text.lstrip("+-").isdigit() and int(text) in INT64 else value
    if column.kind == "date" and is_date(text):
        return text
    if column.kind == "text" and written.type == "TEXT":
        return text
    raise InvalidFilter(f"The column {column.name} holds {HOLDS[column.kind].format(column.name)}.")
