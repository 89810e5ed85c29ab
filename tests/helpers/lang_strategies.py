"""Strategies for the tests of the language: expressions, statements, scores, mini-notation."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from demon_live.controls import CONTROLS
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.signals import SIGNALS
from demon_live.lang.syntax import (
    Bin,
    BindNode,
    Call,
    ChainNode,
    Expr,
    GoNode,
    Hole,
    LetNode,
    ListNode,
    Method,
    Mini,
    Name,
    Neg,
    Num,
    SettingNode,
    StatementNode,
    Text,
    WhenNode,
    WordNode,
)

decimals = st.builds(
    lambda n, d: Fraction(n, d), st.integers(0, 9999), st.sampled_from([1, 2, 4, 5, 8, 10, 100])
)
names = st.sampled_from([*SIGNALS, "rand", "perlin", "wob", "x1"])
words = st.sampled_from([w for w in FUNCTIONS if FUNCTIONS[w].method])
free = st.sampled_from([w for w in FUNCTIONS if not FUNCTIONS[w].method])
texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"),
    max_size=8,
)
plain_mini = st.sampled_from(
    ["0 1", "<a b>/2", "bd(3,8)", "0 .5 [1 .2]*2", "", "{a b c}%4", "~ -", "0 .. 3", "1?"]
)


def _num(value: Fraction) -> Num:
    return Num(0, 0, value)


def _neg(of: Expr) -> Expr:
    # The parser folds the sign of a number into it.
    return Num(0, 0, -of.value) if isinstance(of, Num) else Neg(0, 0, of)


def _deeper(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    args = st.lists(inner, max_size=3).map(tuple)
    return st.one_of(
        st.builds(
            lambda op, a, b: Bin(0, 0, op, a, b),
            st.sampled_from(
                [
                    "+",
                    "-",
                    "*",
                    "/",
                    "%",
                    "<",
                    ">=",
                    "==",
                    "~>",
                    "<~",
                    "**",
                    "and",
                    "or",
                    "|+|",
                    "*|",
                ]
            ),
            inner,
            inner,
        ),
        st.builds(_neg, inner),
        st.builds(lambda of: Neg(0, 0, of, "not"), inner),
        st.builds(lambda n, a: Call(0, 0, n, a), free, args),
        st.builds(lambda o, n, a: Method(0, 0, o, n, a), inner, words, st.none() | args),
        st.builds(lambda i: ListNode(0, 0, i), args),
    )


leaves: st.SearchStrategy[Expr] = st.one_of(
    decimals.map(_num),
    plain_mini.map(lambda t: Mini(0, 0, t)),
    texts.map(lambda t: Text(0, 0, t)),
    names.map(lambda n: Name(0, 0, n)),
    st.just(Hole(0, 0)),
)
#: Any expression, sensible or not: for round trips.
expressions: st.SearchStrategy[Expr] = st.recursive(leaves, _deeper, max_leaves=12)

whens = st.lists(
    st.builds(
        lambda k, n: WhenNode(0, 0, k, Fraction(0) if k == "now" else n),
        st.sampled_from(["now", "at", "in", "over", "xfade"]),
        decimals,
    ),
    max_size=2,
).map(tuple)
_scene = st.sampled_from(["drop", "calm", "a b", "1x", "deck", "at"])

statements: st.SearchStrategy[StatementNode] = st.one_of(
    st.builds(
        lambda c, e, w, d: BindNode(0, 0, c, e, w, d),
        st.sampled_from([*CONTROLS, "foo"]),
        st.none() | expressions,
        whens,
        st.none() | st.sampled_from(["drums", "bass2"]),
    ),
    st.builds(
        lambda w, v, n: SettingNode(0, 0, w, v, n),
        st.sampled_from(["tempo", "loop", "quant"]),
        decimals,
        whens,
    ),
    st.builds(lambda v: SettingNode(0, 0, "source", v), st.none() | texts),
    st.builds(
        lambda n, p, e: LetNode(0, 0, n, p, e),
        st.sampled_from(["wob", "f2"]),
        st.sampled_from([(), ("n",), ("n", "m")]),
        expressions,
    ),
    st.builds(lambda s, w: GoNode(0, 0, s, w), _scene, whens),
    st.builds(
        lambda s, w: ChainNode(0, 0, tuple(s), w),
        st.lists(st.tuples(_scene, decimals), min_size=1, max_size=3),
        whens,
    ),
    st.builds(
        lambda n, w: WordNode(0, 0, n, (), w), st.sampled_from(["hush", "undo", "stop"]), whens
    ),
    st.builds(
        lambda n, a, w: WordNode(0, 0, n, (a,), w),
        st.sampled_from(["mute", "save", "load"]),
        st.sampled_from(["drums", "a b", "now", "x.demon", "1"]),
        whens,
    ),
)

# --- mini-notation ---------------------------------------------------------------------------

_atoms = st.sampled_from(["0", "1", ".5", "-3", "bd", "c3", "~", "'a b'", "x:2", "0 .. 3"])
_factor = st.sampled_from(["2", "3", "1.5", ".5", "<2 3>", "[1 2]"])


def _notation(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        some.map(lambda s: f"[{' '.join(s)}]"),
        some.map(lambda s: f"<{' '.join(s)}>"),
        some.map(lambda s: f"[{','.join(s)}]"),
        some.map(lambda s: f"[{' | '.join(s)}]"),
        st.builds(
            lambda s, n: f"{{{' '.join(s)}}}%{n}", some, st.sampled_from(["3", "4", "<2 5>"])
        ),
        st.builds(lambda s, f: f"[{s}]*{f}", inner, _factor),
        st.builds(lambda s, f: f"[{s}]/{f}", inner, _factor),
        st.builds(lambda s, n: f"[{s}]!{n}", inner, st.integers(1, 3)),
        st.builds(lambda s, n: f"[{s}]@{n}", inner, st.sampled_from(["2", "1.5"])),
        st.builds(lambda s, n: f"[{s}]?{n}", inner, st.sampled_from(["", ".2"])),
        st.builds(
            lambda s, k, n: f"[{s}]({k},{n})",
            inner,
            st.sampled_from(["3", "<3 5>", "-3"]),
            st.integers(1, 9),
        ),
    )


#: Valid mini-notation.
notations: st.SearchStrategy[str] = st.lists(
    st.recursive(_atoms, _notation, max_leaves=6), min_size=1, max_size=4
).map(" ".join)

#: Expressions of numbers that compile: for laws and for the twin in Python.
numbers = st.sampled_from(["0", ".25", ".5", "1", "2"])
_number_patterns = st.sampled_from(
    ['"0 .5 1"', '"<0 .5>/2"', '".2(3,8)"', "sine", "saw", "square", "tri", ".3", '"0 ~ [.5 1]*2"']
)


#: Methods that change a numeric pattern in one way each.
_TAILS = [
    "rev",
    "iter(4)",
    "ply(2)",
    "linger(1/4)",
    "off(1/8, _ * .5)",
    "chunk(4, fast(2))",
    "smooth(.1)",
    "smooth",
    "degradeBy(.3)",
    "euclid(3, 8)",
    'mask("1 0 1")',
    "shuffle(4)",
    "scramble(4)",
    "echo(3, 1/8, .5)",
    "rot(1)",
    "ribbon(1, 2)",
    "ribbon(1/3, 1/2)",
    "zoom(1/4, 3/4)",
    "compress(1/4, 3/4)",
    "press",
    "brak",
    "palindrome",
    "within(0, 1/2, rev)",
    "inside(2, rev)",
    "outside(2, rev)",
    'struct("1 ~ 1")',
    'when("<1 0>", rev)',
    "sometimesBy(.5, _ * .5)",
    "someCycles(rev)",
    "superimpose(fast(2))",
    "quantize(.25)",
    "fastGap(2)",
    "lastOf(3, rev)",
    "repeatCycles(2)",
    "clamp(.1, .8)",
    "pow(2)",
    "invert",
    "swing(1/3, 4)",
    "layer(rev, fast(2))",
    "mask(square)",
    "struct(square.fast(3))",
    "fast(sine.range(1, 2))",
    "iterBack(3)",
    "chunkBack(4, rev)",
    "chunk(-3, rev)",
    "ply(1.5)",
    "linger(.3)",
    'bite(4, "3 [2 1] 0")',
    "fix(.5, _ * .5)",
    "plyWith(3, _ * .5)",
    "pick(sine, .3)",
    'pickmod("0 1", .3)',
    "pickOut(saw, .3)",
    "pickRestart(saw.slow(2), .3)",
    'select(.2, "0 1")',
    'restart("1(3,8)")',
    "euclidFull(3, 8, .3)",
    "euclidLegato(3, 8, 1)",
    "whenmod(4, 2, rev)",
    "every(3, rev, 1)",
    "add(wchoose([.1, 1], [.2, 3]))",
    'squeeze("0 .1")',
    'addOut("0 .1 .2")',
    'addMix("0 .1 .2")',
    "degradeBy(.3).salt(2)",
]


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds(lambda a, o, b: f"({a} {o} {b})", inner, st.sampled_from("+-*"), inner),
        st.builds(
            lambda a, n: f"{a}.fast({n})", inner, st.sampled_from(["2", "1.5", "1/3", '"<1 2>"'])
        ),
        st.builds(lambda a, n: f"{a}.slow({n})", inner, st.sampled_from(["2", "3"])),
        st.builds(lambda a, n: f"{a}.late({n})", inner, st.sampled_from(["1/4", "1/3", "2"])),
        st.builds(lambda a, t: f"{a}.{t}", inner, st.sampled_from(_TAILS)),
        st.builds(lambda a, t: f"{a}.{t}", inner, st.sampled_from(_TAILS)),
        st.builds(lambda a, b: f"arrange([2, {a}], [1, {b}])", inner, inner),
        st.builds(lambda a, b: f"seq({a}, {b})", inner, inner),
        st.builds(lambda a, b: f"choose({a}, {b})", inner, inner),
        st.builds(
            lambda a, n: f"{a}.range({n}, .9)", inner, st.sampled_from(["0", ".2", '"0 .5"'])
        ),
        st.builds(lambda a, n: f"{a}.segment({n})", inner, st.sampled_from(["3", "8"])),
        st.builds(
            lambda a, f: f"{a}.every(3, {f})", inner, st.sampled_from(["rev", "fast(2)", "_ * .5"])
        ),
        st.builds(lambda a, b: f"cat({a}, {b})", inner, inner),
        st.builds(lambda a, b: f"stack({a}, {b})", inner, inner),
    )


#: Text of numeric expressions that compile.
curves: st.SearchStrategy[str] = st.recursive(_number_patterns, _combined, max_leaves=4)
