"""The registry of functions: each is declared once, by a decorator on its implementation.

    @function('blend = "0 .5 1".fast(2)')
    def fast(pat: Pattern, factor: Time) -> Pattern:
        \"\"\"Faster by a factor; the factor may be a pattern.\"\"\"

The docstring is the help, the argument an example that a test runs, and the annotations say how
the compiler converts each argument. Arguments, help, completion, patterns/REFERENCE.md and the
Python face (demon_live.dsl) all read the registry. functions.py imports every module that fills it.

A first parameter `pat` makes a method: p.fast(2). Annotations of parameters:

    Time     exact Fraction     Count   whole number          Number  float
    Pattern  any pattern        Numbers pattern of numbers    Gate    pattern of yes and no
    Chance   float from 0 to 1  Transform  Pattern -> Pattern  Values  list of numbers, or one
    Section  [cycles, pattern]  Weighted   [pattern, weight]
    Lots     key of random draws; the compiler supplies it

Time, Count, Number and Chance may be patterns in a score (fast("<1 2>")): the compiler binds them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeVar

from demon_live.lang.pattern import Pattern

Time = Fraction
Count = int
Number = float
Chance = float
Numbers = Pattern
Gate = Pattern
Transform = Callable[[Pattern], Pattern]
Values = Any
Section = tuple[Fraction, Pattern]
Weighted = tuple[Fraction, Pattern]
Lots = int

_Make = TypeVar("_Make", bound=Callable[..., Pattern])


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter. kind: its annotation. many: takes any number of arguments."""

    name: str
    kind: str
    default: Any = None
    optional: bool = False
    many: bool = False

    @property
    def shown(self) -> str:
        if self.many:
            return f"{self.name}, ..."
        default = "none" if self.default is None else str(self.default)
        return f"{self.name}={default}" if self.optional else self.name


@dataclass(frozen=True)
class Function:
    """A function of the language.

    method: takes a pattern in front, p.fast(2). numeric: that pattern must be of numbers.
    random: draws lots, so `make` takes a `key`.
    """

    name: str
    params: tuple[Param, ...]
    make: Callable[..., Pattern]
    help: str
    example: str
    method: bool
    numeric: bool
    random: bool

    @cached_property
    def least(self) -> int:
        """The least number of arguments."""
        return sum(not p.optional and not p.many for p in self.params)

    @cached_property
    def many(self) -> bool:
        """Takes any number of arguments."""
        return bool(self.params) and self.params[-1].many

    @property
    def signature(self) -> str:
        """As it is written: p.range(low, high)."""
        inner = f"({', '.join(p.shown for p in self.params)})" if self.params else ""
        return f"{'p.' * self.method}{self.name}{inner}"

    @property
    def counted(self) -> str:
        """How many arguments it takes, and its signature."""
        if self.many:
            return "at least one argument"
        most = len(self.params)
        shown = str(most) if self.least == most else f"{self.least} to {most}"
        return f"{shown} argument{'s' * (most != 1)}: {self.signature}"

    @property
    def advice(self) -> str:
        """A hint that shows the function at work."""
        return f"write {self.example.split('= ')[1]}"


#: name -> Function. Read it from functions.py, which completes it.
REGISTRY: dict[str, Function] = {}


def function(example: str, name: str = "", help: str = "") -> Callable[[_Make], _Make]:
    """Register the decorated function.

    Args:
        example: a line of score that uses it.
        name: in the language; by default the Python name in camel case (iter_back is iterBack).
        help: one line; by default the first line of the docstring.
    """

    def register(make: _Make) -> _Make:
        words = make.__name__.rstrip("_").split("_")
        named = name or words[0] + "".join(w.title() for w in words[1:])
        line = help or (make.__doc__ or "").partition("\n")[0]
        rows = list(inspect.signature(make).parameters.values())
        pat = rows[0] if rows and rows[0].name == "pat" else None
        params = tuple(_param(p) for p in rows if p is not pat and p.annotation != "Lots")
        REGISTRY[named] = Function(
            named,
            params,
            make,
            line,
            example,
            method=pat is not None,
            numeric=pat is not None and pat.annotation == "Numbers",
            random=any(p.annotation == "Lots" for p in rows),
        )
        return make

    return register


_KIND = re.compile(
    r"Time|Count|Chance|Numbers|Number|Pattern|Gate|Transform|Values|Section|Weighted"
)


def _param(p: inspect.Parameter) -> Param:
    found = _KIND.match(str(p.annotation))
    if found is None:
        raise TypeError(f"parameter {p.name}: {p.annotation} is no kind of argument")
    optional = p.default is not p.empty
    many = p.kind is p.VAR_POSITIONAL
    return Param(p.name, found.group(), p.default if optional else None, optional, many)
