"""The dress of a report: one page of HTML that needs nothing from elsewhere."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape

from aslseg.report.data import Mean

# Nothing may be fetched, and nothing can run, whatever names of cases contain.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root{--ink:#1c2733;--soft:#5a6876;--line:#dde3e9;--wash:#f5f7f9;--accent:#0b5c8a;--bar:#8fbfdb;
--good:#00674a;--warn:#7a4b00;--warn-wash:#fff4dc;--bad:#a12622}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",
Roboto,"Noto Sans","DejaVu Sans",sans-serif}
main{max-width:68rem;margin:0 auto;padding:2.5rem 1.5rem 4rem}
h1{font-size:2rem;line-height:1.2;margin:0 0 .3rem;letter-spacing:-.01em}
h2{font-size:1.3rem;margin:3rem 0 .6rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.8rem 0 .5rem}
p{max-width:46rem;margin:.5rem 0}
.soft{color:var(--soft)}
.badge{display:inline-block;border:1px solid currentColor;border-radius:1rem;padding:0 .65rem;
font-size:.85rem;font-weight:600;vertical-align:middle}
.done{color:var(--good)}.failed{color:var(--bad)}.other{color:var(--warn)}
.notice{background:var(--warn-wash);border-left:4px solid #d08b00;padding:.7rem 1rem;margin:1rem 0;
max-width:46rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.6rem 0 1rem;
min-width:24rem}
caption{text-align:left;color:var(--soft);font-size:.9rem;padding-bottom:.4rem}
th,td{padding:.38rem .9rem;text-align:left;border-bottom:1px solid var(--line);
vertical-align:baseline}
thead th{font-size:.85rem;color:var(--soft);border-bottom:2px solid var(--ink);white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}
td.best{font-weight:700}
tr.first td,tr.first th{border-top:2px solid var(--line)}
tbody th{font-weight:500}
.bar{background:linear-gradient(var(--bar),var(--bar)) no-repeat 0 100%/var(--part) 4px}
.curves{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:1rem}
.curves img{width:100%}
figure{margin:1rem 0 1.6rem}
figure img{display:block;max-width:100%;background:#000;border-radius:4px}
figcaption{font-size:.92rem;margin-top:.4rem}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding:.55rem .9rem;background:#22272d;
color:#fff;border-radius:4px;font-size:.92rem;width:fit-content}
.legend i{display:inline-block;width:1.6rem;border-top:4px solid;margin-right:.45rem;
vertical-align:middle}
details{margin:.5rem 0}
summary{cursor:pointer;color:var(--accent);font-weight:500}
a{color:var(--accent)}
:focus-visible{outline:3px solid #e69f00;outline-offset:2px}
nav{margin:1rem 0 0;display:flex;flex-wrap:wrap;gap:.2rem 1.3rem;font-size:.95rem}
footer{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--line);font-size:.9rem}
@media print{main{max-width:none;padding:0}figure,tr{break-inside:avoid}nav{display:none}}
"""


def page(title: str, body: Iterable[str]) -> str:
    """Put the parts of a body into a page that stands alone."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body><main>
{"".join(body)}
</main></body>
</html>
"""


def section(name: str, title: str, parts: Sequence[str]) -> str:
    """Make a section, or nothing when it has no parts."""
    if not any(parts):
        return ""
    return f'<section id="{escape(name)}"><h2>{escape(title)}</h2>{"".join(parts)}</section>\n'


def plain(text: str) -> str:
    """Make text safe to stand inside of an element."""
    return escape(text)


def heading(text: str) -> str:
    """Make a small heading."""
    return f"<h3>{escape(text)}</h3>\n"


def paragraph(text: str, style: str = "") -> str:
    """Make a paragraph of plain text."""
    return f'<p class="{style}">{escape(text)}</p>\n'


def notice(text: str) -> str:
    """Make a paragraph that is not overlooked."""
    return f'<p class="notice" role="note">{escape(text)}</p>\n'


def details(title: str, content: str) -> str:
    """Make a part that opens on a click."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>\n"


def cell(text: str, *, style: str = "") -> str:
    """Make a table cell of plain text."""
    return f'<td class="{style}">{escape(text)}</td>'


def number_cell(value: float, digits: int = 3) -> str:
    """Make a cell of a number; what is undefined is a dash."""
    return cell(number(value, digits), style="n")


def share_cell(value: float, *, text: str = "", best: bool = False) -> str:
    """Make a cell of a number in [0, 1] over a bar of that length."""
    part = 100.0 * min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
    style = "n bar best" if best else "n bar"
    shown = escape(text or number(value))
    return f'<td class="{style}" style="--part:{part:.1f}%">{shown}</td>'


def number(value: float, digits: int = 3) -> str:
    """Write a number; what is undefined is a dash."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"  # noqa: RUF001


def mean_text(mean: Mean) -> str:
    """Write a mean and its standard deviation."""
    if mean.cases < 2:
        return number(mean.value)
    return f"{number(mean.value)} ± {number(mean.spread, 2)}"


def table(head: Sequence[str], rows: Iterable[str], *, caption: str, text_columns: int = 1) -> str:
    """Make a table from rows of ready cells.

    Args:
        head: Column titles.
        rows: `<tr>` elements.
        caption: Said above the table.
        text_columns: So many columns from the left hold words; the others hold numbers.
    """
    titles = "".join(
        f'<th scope="col" class="{"" if place < text_columns else "n"}">{escape(title)}</th>'
        for place, title in enumerate(head)
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>\n"
    )


def row(cells: Iterable[str], *, first: bool = False) -> str:
    """Make a table row; `first` draws a line above it."""
    return f'<tr class="{"first" if first else ""}">{"".join(cells)}</tr>\n'


def svg_image(svg: str, alt: str) -> str:
    """Embed a drawing."""
    data = base64.b64encode(svg.encode()).decode("ascii")
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(alt)}">'


def figure(address: str, alt: str, caption: str) -> str:
    """Embed a picture with its caption."""
    return (
        f'<figure><img src="{address}" alt="{escape(alt)}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def legend(items: Iterable[tuple[str, str]]) -> str:
    """Explain colours: pairs of a name and a colour."""
    marks = "".join(
        f'<span><i style="border-color:{colour}"></i>{escape(name)}</span>'
        for name, colour in items
    )
    return f'<p class="legend">{marks}</p>\n'
