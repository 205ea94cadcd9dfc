"""What the site (`make docs`) does that MkDocs does not: links from a page to the rest of the repository work.

Links are written as a code host needs them, relative to the page's file. A Markdown file outside docs/ that a page
links to becomes a page of the site at its own path, and any other file a page that shows it. What is not there is a
warning, which `mkdocs build --strict` makes an error. And examples in docstrings are shown as code.
"""

import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
LANGUAGES = {".py": "python", ".sh": "sh", ".yaml": "yaml", ".toml": "toml", ".patch": "diff"}
EXAMPLE = re.compile(r"^( *)(>>> .*?)(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


def on_files(files, config):
    """Add the files that pages link to, and those that these link to."""
    waiting = [file for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        for path, _ in LINK.findall(page.content_string):
            target = _target(page, path)
            uri = _uri(target)
            if target is None or target.startswith(DOCS) or files.get_file_from_path(uri):
                continue
            if not (ROOT / target).is_file():  # MkDocs warns of it
                continue
            added = File.generated(config, uri, content=_content(target))
            files.append(added)
            waiting.append(added)
    return files


def on_page_markdown(markdown, page, config, files):
    """Have links lead to the pages of the site."""
    here = posixpath.dirname(page.file.src_uri)

    def rewritten(match):
        target = _target(page.file, match[1])
        return match[0] if target is None else posixpath.relpath(_uri(target), here or ".") + (match[2] or "")

    return LINK.sub(rewritten, markdown)


def _target(file, path):
    """The repository's path of what a link leads to; None for an address elsewhere."""
    if ":" in path:
        return None
    own = file.src_uri if file.generated_by else DOCS + file.src_uri
    return posixpath.normpath(posixpath.join(posixpath.dirname(own), path))


def _uri(target):
    """The source path that MkDocs knows a file of the repository by."""
    if target is None or target.startswith(DOCS):
        return target and target.removeprefix(DOCS)
    if target == "README.md":
        return "index.md"
    return target if target.endswith((".md", ".png", ".svg")) else f"{target}.md"


def _content(target):
    text = (ROOT / target).read_text(encoding="utf-8")
    if target.endswith(".md"):
        return text
    return f"# {target}\n\n```{LANGUAGES.get(Path(target).suffix, 'text')}\n{text}```\n"


class Examples(griffe.Extension):
    """Fences the doctests of docstrings, which Markdown would take for quotations."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(r"\1```pycon\n\1\2\n\1```", obj.docstring.value)
