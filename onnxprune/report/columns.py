"""What the tables of a report share: how they look, and how numbers are written."""

from __future__ import annotations

from rich import box
from rich.table import Table

__all__ = ["columns", "count"]


def count(number: int | None) -> str:
    """A number as people read it: 987, 96.3 K, 25.6 M, 4.1 G."""
    if number is None:
        return "-"
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def columns(*headings: str) -> Table:
    """A table; headings that end in `>` stand over numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading in headings:
        number = heading.endswith(">")
        table.add_column(
            heading.removesuffix(">"),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=number,
        )
    return table
