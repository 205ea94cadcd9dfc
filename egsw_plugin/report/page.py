"""The report as one HTML file that fetches nothing: curves, tables, and links to the pages of records beside it."""

import base64
import html
import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from ..content_policy import content_policy

_STYLE = """
body { margin: 0 auto; padding: 0 1rem 2rem; max-width: 75rem; color: #111; background: #fff; color-scheme: light;
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } h3 { font-size: 1rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
img { width: 100%; height: auto; }
.table { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.5rem 0; font-variant-numeric: tabular-nums; }
td, th { border: 1px solid #ccc; padding: 0.15rem 0.5rem; }
.right { text-align: right; } .center { text-align: center; }
pre { white-space: pre-wrap; background: #f3f3f3; padding: 0.5rem; }
"""


def page(title: str, texts: Iterable[str], curves: dict[str, bytes], links: dict[str, Path], folder: Path) -> str:
    """HTML of Markdown texts, SVG curves by title, and links by label, relative to `folder`.

    Raises:
        ModuleNotFoundError: markdown-it-py is not installed.
    """
    try:
        from markdown_it import MarkdownIt
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the page needs markdown-it-py: pip install 'egsw-plugin[report]'") from error
    # What a model wrote is in these texts: markup in them stays text, and nothing may be fetched.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "html_block", "html_inline"])
    body = [f"<h1>{html.escape(title)}</h1>"]
    if curves:
        pictures = (
            f'<img alt="{html.escape(name)}" src="data:image/svg+xml;base64,{base64.b64encode(svg).decode()}">'
            for name, svg in curves.items()
        )
        body.append(f'<div class="curves">{"".join(pictures)}</div>')
    if links:
        entries = (
            f'<li><a href="{quote(os.fsencode(os.path.relpath(path, folder)))}">{html.escape(label)}</a></li>'
            for label, path in links.items()
        )
        body.append(f"<h2>Token by token</h2><ul>{''.join(entries)}</ul>")
    for text in texts:
        rendered = markdown.render(text)
        # The policy lets no style stand in an element.
        rendered = re.sub(r' style="text-align:(\w+)"', r' class="\1"', rendered)
        body.append(rendered.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>"))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{content_policy(style=_STYLE, images=True)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
