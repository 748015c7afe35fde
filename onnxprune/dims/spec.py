"""Axis rules as one line of text.

`"n (g i) _*, (g o) i _*, (g o) -> n (g o) _*; group/1=g"` says what a convolution says: inputs before the arrow,
outputs after it, their axes separated by spaces. Missing optional inputs and outputs are skipped.

    c        an axis; the same letter is the same axis everywhere in the spec
    (g o)    a product of axes, outermost first
    a+(g o)  a sum of axes
    4        an axis (or factor) of that size whose indices stay
    _        an axis whose indices stay
    c!       an axis (or factor) whose indices stay, although tensors share it
    c~       the op normalises over this axis (or factor): cutting it is inexact
    c?       an axis that is broadcast where its size is 1 or, at the left, where it is missing
    s*       any number of axes, the same in each tensor that has them (counted from the right, size 1 broadcasts)
    _*       any number of axes whose indices stay
    *        (alone) this tensor says nothing
             (nothing) this tensor is not there, or has no axes

Alternatives are separated by `|`: the first is taken that fits the numbers of axes. `mode=CRD:` before one asks for an
attribute's value, `layout:` for one that is set and not 0; there may be several. A part after `;` gives attributes that
are sizes, with the default after a slash: `group/1=g` of an axis, `qkv_hidden_sizes=(h d) (h d) (h v)` of several; they
follow when the axis is cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.dims.axis import Axis, Dim, Product, Sum, size

if TYPE_CHECKING:
    from onnxprune.dims.context import Context

__all__ = ["POSITIONS", "Spec", "Token"]

POSITIONS = "works along it"
"""How the reason ends where an axis holds positions (of a kernel, an image, a sequence), not channels."""

_WORD = re.compile(r"(?:\([^)]*\)|[^\s()])+")
_CONDITION = re.compile(r"(\w+)(?:=(\w+))?:")

Letters = dict[str, Axis]


@dataclass(frozen=True)
class Token:
    """One axis as a spec writes it: a sum of products of letters, which may bear `!` or `~`."""

    parts: tuple[tuple[str, ...], ...]
    broadcast: bool = False
    repeated: bool = False

    @classmethod
    def parse(cls, word: str) -> Token:
        """Reads one word of a spec."""
        body = word.rstrip("?*")
        parts = tuple(tuple(part.strip("()").split()) for part in body.split("+"))
        return cls(parts, body != word, word.endswith("*"))

    @property
    def names(self) -> list[str]:
        """Its letters with their marks."""
        return [name for part in self.parts for name in part]

    def numbered(self, k: int) -> Token:
        """The k-th axis, from the right, of those that a repeated token stands for."""
        letter, mark = _bare(self.names[0]), self.names[0][len(_bare(self.names[0])) :]
        return Token(((f"{letter}{k}{mark}",),), broadcast=True)

    def axis(self, letters: Mapping[str, Axis]) -> Axis:
        """The axis, where all letters are known."""
        products = (Product(tuple(letters[_bare(name)] for name in part)) for part in self.parts)
        return Sum(tuple(products))

    def solved(self, total: int, letters: Letters) -> Axis | None:
        """The axis of a given size; at most one letter may be unknown, whose size follows. None where nothing fits."""
        unknown = {_bare(name) for name in self.names} - letters.keys()
        for number in filter(str.isdigit, sorted(unknown)):
            letters[number] = Dim(int(number), "its number is fixed by the op")
            unknown.remove(number)
        if len(unknown) > 1:
            return None
        for letter in unknown:
            letters[letter] = Dim(1)
            letters[letter] = Dim(total // max(1, size(self.axis(letters))))
        axis = self.axis(letters)
        return axis if size(axis) == total else None


Tensor = tuple[Token, ...] | None
Cells = list[tuple[Token, Axis]]


@dataclass(frozen=True)
class Alternative:
    """The axes of all inputs and outputs, and which attributes must have which values (or any, "") for that."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    conditions: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Alternative:
        """Reads what is between two bars."""
        left, arrow, right = _CONDITION.sub("", text).partition("->")
        if not arrow:
            raise ValueError(f"no arrow in the axis spec {text!r}")
        return cls(_tensors(left), _tensors(right), tuple(_CONDITION.findall(text)))

    def cells(self, node: Context) -> Cells | None:
        """Tokens paired with the axes of a node; None where they do not fit."""
        for name, wanted in self.conditions:
            given = node.attr(name)
            if not given or wanted not in ("", given):
                return None
        found: Cells = []
        for tensors, axes_of in ((self.inputs, node.axes), (self.outputs, node.out)):
            for i, tokens in enumerate(tensors):
                cells = [] if tokens is None else _matched(tokens, axes_of(i) or ())
                if cells is None:
                    return None
                found += cells
        return found


@dataclass(frozen=True)
class Spec:
    """A parsed spec. `apply` is the rule."""

    alternatives: tuple[Alternative, ...]
    sizes: tuple[tuple[str, int | None, tuple[Token, ...]], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Reads a spec; the module's docstring is the grammar."""
        body, _, attributes = text.partition(";")
        sizes = []
        for each in filter(None, attributes.split(",")):
            key, _, axes = each.partition("=")
            name, _, default = key.strip().partition("/")
            sizes.append((name, int(default) if default else None, _tokens(axes)))
        return cls(tuple(map(Alternative.parse, body.split("|"))), tuple(sizes))

    def apply(self, node: Context) -> Letters:
        """States the equalities for one node.

        Returns:
            The axis that each letter stands for; none where the spec does not fit, and all that the node touches stays.
        """
        cells = next((c for each in self.alternatives if (c := each.cells(node)) is not None), None)
        if cells is None:
            node.freeze_all(f"{node.op} does not usually have as many axes as here")
            return {}
        letters: Letters = {}
        follow: list[tuple[str, list[Axis | None]]] = []
        for attribute, default, tokens in self.sizes:
            given = node.attr(attribute, default)
            if np.any(given):  # 0 says that the op finds out
                pairs = zip(tokens, np.ravel(given), strict=True)
                follow.append((attribute, [token.solved(int(n), letters) for token, n in pairs]))
        # Plain letters first: they give the sizes that products need.
        for token, axis in sorted(cells, key=lambda cell: len(cell[0].names)):
            if token.names[0].startswith("_"):
                node.freeze(axis)
            elif size(axis) > 1 or not token.broadcast:
                stated = token.solved(size(axis), letters)
                if stated is None:
                    node.freeze_all(f"{node.op} merges axes in an unknown way")
                    return {}
                node.unify(axis, stated)
                _mark(node, token, letters)
        for attribute, axes in follow:
            node.follows(attribute, axes)
        return letters


def _mark(node: Context, token: Token, letters: Letters) -> None:
    for name in token.names:
        if name.endswith("~"):
            node.inexact(letters[_bare(name)], f"{node.op} normalises over it")
        elif name.endswith("!"):
            node.freeze(letters[_bare(name)])


def _matched(tokens: tuple[Token, ...], axes: tuple[Axis, ...]) -> Cells | None:
    """Pairs tokens with axes, one for one; a tensor without axes fits everywhere."""
    if not axes:
        return []
    while len(tokens) > len(axes) and tokens[0].broadcast:
        tokens = tokens[1:]
    for at, token in enumerate(tokens):
        if token.repeated:
            count = len(axes) - len(tokens) + 1
            many = [token.numbered(k) for k in range(count, 0, -1)]
            tokens = (*tokens[:at], *many, *tokens[at + 1 :])
            break
    return list(zip(tokens, axes, strict=True)) if len(tokens) == len(axes) else None


def _bare(name: str) -> str:
    return name.rstrip("!~")


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(None if each.strip() == "*" else _tokens(each) for each in text.split(","))


def _tokens(text: str) -> tuple[Token, ...]:
    return tuple(map(Token.parse, _WORD.findall(text)))
