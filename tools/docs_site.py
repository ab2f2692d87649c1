"""Hooks of mkdocs for the documentation site: what pages show that lies outside docs/.

CONTRIBUTING.md and CHANGELOG.md become pages. A file that a page links to, as ../zsrc/golibx.h is,
becomes a page with its text: so the site needs no repository beside it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
LANGUAGES = {".h": "c", ".c": "c", ".py": "python", ".toml": "toml", ".zig": "zig", ".sh": "bash"}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    for name, uri in PAGES.items():
        pages[uri] = _moved((ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, uri, content=pages[uri]))
    for uri, text in pages.items():
        for target in LINK.findall(text):
            outside = _outside(uri, target)
            if outside is not None and files.get_file_from_path(_shown_at(outside)) is None:
                content = _shown(outside)
                files.append(File.generated(config, _shown_at(outside), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    uri = page.file.src_uri

    def replaced(match: re.Match[str]) -> str:
        outside = _outside(uri, match[1])
        if outside is None:
            return match[1]
        return posixpath.relpath(_shown_at(outside), posixpath.dirname(uri) or ".")

    markdown = LINK.sub(replaced, markdown)
    # Forges show Markdown in a table of HTML as it is, mkdocs where the table asks for it.
    return re.sub(r"<(table|tr|td)>", r'<\1 markdown="block">', markdown)


def _moved(text: str) -> str:
    """The text of a file at the root as that of one in docs/."""
    return LINK.sub(lambda m: posixpath.relpath(m[1], "docs"), text)


def _outside(uri: str, target: str) -> str | None:
    """The path from the root of what a page links to; None if that lies in docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(uri), target))
    return None if path.startswith("docs/") else path


def _shown_at(path: str) -> str:
    return PAGES.get(path, f"files/{path}.md")


def _shown(path: str) -> str:
    file = ROOT / path
    if not file.is_file():
        raise PluginError(f"a page links to {path}, which is no file of the repository")
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return _moved(text) if "/" not in path else text
    fence = "`" * 6
    return f"# {path}\n\n{fence}{LANGUAGES.get(file.suffix, 'text')}\n{text}{fence}\n"
