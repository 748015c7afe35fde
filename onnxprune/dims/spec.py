"""Axis rules as one line of text.

`"n (g i) _*, (g o) i _*, (g o) -> n (g o) _*"` says what a convolution says: inputs before the arrow, outputs after it,
their axes separated by spaces. Missing optional inputs and outputs are skipped.

    c        an axis; the same letter is the same axis everywhere in the spec
    (g o)    a product of axes, outermost first
    4        an axis (or factor) of that size whose indices stay
    _        an axis whose indices stay
    _*       any number of those
    s*       any number of axes, the same in each tensor that has them (counted from the right, size 1 broadcasts)
    c!       an axis whose indices stay, although tensors share it
    c~       the op normalises over this axis: cutting it is inexact
    c?       an axis that may have size 1 instead and is then broadcast
    *        (alone) this tensor says nothing

A part after `;` gives the letters whose size is an attribute, with a default after a slash: `g=group/1`. A part after
a second `;` gives the attributes that follow an axis: `hidden_size=h`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.dims.axis import Axis, Dim, Product, size

if TYPE_CHECKING:
    from onnxprune.dims.context import Context

__all__ = ["POSITIONS", "Spec"]

POSITIONS = "works along it"
"""How the reason ends where an axis holds positions (of a kernel, an image, a sequence), not channels."""

_TOKEN = re.compile(r"\(([^)]*)\)(\?)?|(\S+)")


@dataclass(frozen=True)
class Token:
    """One word of a tensor's description: its factors (one but for a product) and marks."""

    factors: tuple[str, ...]
    repeated: bool = False
    inexact: bool = False
    optional: bool = False
    frozen: bool = False


@dataclass(frozen=True)
class Spec:
    """A parsed spec. `apply` is the rule."""

    inputs: tuple[tuple[Token, ...] | None, ...]
    outputs: tuple[tuple[Token, ...] | None, ...]
    letter_sizes: tuple[tuple[str, str, int | None], ...]
    attribute_sizes: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Reads a spec; the module's docstring is the grammar."""
        body, _, settings = text.partition(";")
        settings, _, followers = settings.partition(";")
        left, arrow, right = body.partition("->")
        if not arrow:
            raise ValueError(f"no arrow in the axis spec {text!r}")
        return cls(_tensors(left), _tensors(right), _settings(settings), _followers(followers))

    def apply(self, node: Context) -> None:
        """States the equalities for one node."""
        pairs = [
            (tokens, node.axes(i))
            for i, tokens in enumerate(self.inputs)
            if tokens is not None and i < node.input_count
        ] + [
            (tokens, node.out(i))
            for i, tokens in enumerate(self.outputs)
            if tokens is not None and i < node.output_count
        ]
        letters: dict[str, Axis] = {}
        for letter, attribute, default in self.letter_sizes:
            n = node.attr(attribute, default)
            if n is not None:
                letters[letter] = Dim(int(n))
        cells = [
            cell
            for tokens, axes in pairs
            if axes is not None
            for cell in _match(tokens, axes, node)
        ]
        # Plain letters first: they give the sizes that products need.
        for token, name, axis in sorted(cells, key=lambda cell: len(cell[0].factors)):
            self._state(node, token, name, axis, letters)
        for attribute, letter in self.attribute_sizes:
            if letter in letters:
                node.attr_follows(attribute, letters[letter])

    def _state(
        self, node: Context, token: Token, name: str, axis: Axis, letters: dict[str, Axis]
    ) -> None:
        if token.inexact:
            node.inexact(axis, f"{node.op} normalises over it")
        if token.frozen:
            node.freeze(axis)
        if token.optional and size(axis) == 1:
            return
        if len(token.factors) > 1:
            product = _product(token, axis, letters)
            if product is None:
                node.freeze(axis, f"{node.op} merges it in an unknown way")
            else:
                node.unify(axis, product)
        elif name == "_":
            node.freeze(axis, f"{node.op} works along it")
        elif name.isdigit():
            node.unify(axis, Dim(int(name), f"{node.op} has {name} of them"))
        elif name not in letters:
            letters[name] = axis
        elif token.optional or token.repeated:
            if size(letters[name]) == 1:
                letters[name] = axis
            elif size(axis) != 1:
                node.unify(axis, letters[name])
        else:
            node.unify(axis, letters[name])


def _match(
    tokens: tuple[Token, ...], axes: tuple[Axis, ...], node: Context
) -> list[tuple[Token, str, Axis]]:
    """Pairs tokens with axes; repeated tokens are numbered from the right."""
    extra = len(axes) - sum(not token.repeated for token in tokens)
    if extra < 0 or (extra and not any(token.repeated for token in tokens)):
        for axis in axes:
            node.freeze(axis, f"{node.op} does not usually have {len(axes)} axes there")
        return []
    cells, i = [], 0
    for token in tokens:
        for k in range(extra if token.repeated else 1):
            name = token.factors[0]
            if token.repeated and name != "_":
                name = f"{name}{extra - k}*"
            cells.append((token, name, axes[i]))
            i += 1
    return cells


def _product(token: Token, axis: Axis, letters: dict[str, Axis]) -> Product | None:
    """The product that a token stands for; at most one unknown factor, whose size follows from the whole."""
    total, unknown = size(axis), []
    for name in token.factors:
        if name.isdigit():
            letters.setdefault(name, Dim(int(name), "its number is fixed by the op"))
        if name in letters:
            n = size(letters[name])
            if n == 0 or total % n:
                return None
            total //= n
        else:
            unknown.append(name)
    if len(unknown) > 1 or (not unknown and total != 1):
        return None
    for name in unknown:
        letters[name] = Dim(total)
    return Product(tuple(letters[name] for name in token.factors))


def _tensors(text: str) -> tuple[tuple[Token, ...] | None, ...]:
    return tuple(None if t.strip() == "*" else _tokens(t) for t in text.split(","))


def _tokens(text: str) -> tuple[Token, ...]:
    tokens = []
    for product, mark, word in _TOKEN.findall(text):
        if product:
            tokens.append(Token(tuple(product.split()), optional=bool(mark)))
        else:
            name = word.rstrip("~?*!")
            marks = word[len(name) :]
            tokens.append(Token((name,), "*" in marks, "~" in marks, "?" in marks, "!" in marks))
    return tuple(tokens)


def _settings(text: str) -> tuple[tuple[str, str, int | None], ...]:
    found = []
    for setting in filter(None, (part.strip() for part in text.split(","))):
        letter, _, attribute = setting.partition("=")
        attribute, _, default = attribute.partition("/")
        found.append((letter, attribute, int(default) if default else None))
    return tuple(found)


def _followers(text: str) -> tuple[tuple[str, str], ...]:
    parts = (part.strip().partition("=") for part in text.split(",") if part.strip())
    return tuple((attribute, letter) for attribute, _, letter in parts)
