"""A report as a page for a browser: all rows of all tables, in one file that needs no other."""

from __future__ import annotations

import html
import io

from rich.console import Console

from onnxprune.report.data import Report
from onnxprune.report.terminal import headline, show

__all__ = ["page"]

_WIDTH = 160
_TITLE = "@title"
_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<title>{_TITLE}</title>
<style>
{{stylesheet}}
body {{{{ color: {{foreground}}; background-color: {{background}}; margin: 2em; }}}}
pre {{{{ font: 14px/1.3 "DejaVu Sans Mono", Menlo, Consolas, monospace; }}}}
</style>
</head>
<body>
<pre>{{code}}</pre>
</body>
</html>
"""


def page(report: Report) -> str:
    """The report as HTML."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=_WIDTH,
        highlight=False,
        emoji=False,
        markup=False,
        force_terminal=True,
    )
    show(report, console, verbose=True)
    written = console.export_html(code_format=_PAGE)
    return written.replace(_TITLE, html.escape(headline(report)), 1)
