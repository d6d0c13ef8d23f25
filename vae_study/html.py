"""Executed notebooks become pages that need no network, and `index.html` leads to them."""

import base64
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from jinja2 import ChoiceLoader, Environment, PackageLoader, select_autoescape
from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from traitlets.config import Config

import vae_core
from vae_core.storage import PROJECT, atomic_write
from vae_study.execute import PageOutcome
from vae_study.page_list import Page

# The answer in the README and the picture below it.
ANSWER = re.compile(r"<!-- answer -->(.*?)<!-- end of answer -->\s*!\[(.*?)\]\((.*?)\)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
HEADING = re.compile(r"^# # (.+)$", re.MULTILINE)  # the first one of a notebook's source
# Formulas stand between dollars, but not in code.
FORMULA = re.compile(r"(`+).+?\1|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.DOTALL)


def write_pages(report: Path, outcomes: list[PageOutcome], strip: str) -> None:
    """Write a page for each executed notebook, remove those of the others, write the front page.

    `strip` is the base64 PNG that leads to the explorer's page; "" where there is no such page.
    """
    done = [outcome for outcome in outcomes if outcome.notebook is not None]
    for outcome in outcomes:
        path = report / f"{outcome.page.name}.html"
        if outcome.notebook is None:
            path.unlink(missing_ok=True)
        else:
            atomic_write(path, render_page(outcome, done))
    atomic_write(report / "index.html", render_index(outcomes, strip))


def render_page(outcome: PageOutcome, done: list[PageOutcome]) -> str:
    """Return the page of an executed notebook, with links to those before and after it."""
    # With the state of a widget, nbconvert would show the widget instead of the image beside it.
    outcome.notebook.metadata.pop("widgets", None)
    body, _ = EXPORTER.from_notebook_node(outcome.notebook)
    return TEMPLATES.get_template("page.html.j2").render(outcome=outcome, done=done, body=body)


def render_index(outcomes: list[PageOutcome], strip: str) -> str:
    """Return the front page: the answer, the explorer, and what became of each page."""
    return TEMPLATES.get_template("index.html.j2").render(
        outcomes=outcomes,
        strip=strip,
        versions=f"vae_core {vae_core.__version__}, torch {torch.__version__}",
        now=datetime.now(),
        **readme_answer(),
    )


def readme_answer() -> dict[str, Any]:
    """Return the README's answer, the picture below it and its text; nothing without them."""
    readme = PROJECT / "README.md"
    if not readme.exists():
        return {}
    match = ANSWER.search(readme.read_text(encoding="utf-8"))
    if match is None or not (PROJECT / match[3]).exists():
        return {}
    picture = base64.b64encode((PROJECT / match[3]).read_bytes()).decode()
    answer = COMMENT.sub("", match[1]).strip()
    return {"answer": answer, "caption": match[2], "picture": picture}


def page_question(page: Page) -> Markup:
    """Return a page's question: the first heading of its notebook, or else the page's name.

    Where a notebook has several pages, the parameter set is added.
    """
    source = page.notebook.read_text(encoding="utf-8", errors="replace")
    heading = HEADING.search(source)
    if heading is None:
        text = Markup.escape(page.name)
    else:
        suffix = page.name[len(page.notebook.stem) :].strip("-")
        text = f"{heading[1]} – {suffix}" if suffix else heading[1]
    html = render_markdown(text).strip()
    return Markup(html.removeprefix("<p>").removesuffix("</p>"))


def render_markdown(text: str) -> str:
    """Return Markdown as HTML, with its formulas as MathML."""
    # Links to the headings would send them through an XML parser, which breaks the formulas.
    renderer = IPythonRenderer(escape=False, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(FORMULA.sub(render_formula, text))


def render_formula(match: re.Match) -> str:
    """Return a formula as MathML; code, and what cannot be set, as it is."""
    formula, display = match["inline"], "inline"
    if match["block"]:
        formula, display = match["block"], "block"
    if not formula:
        return match[0]
    try:
        mathml = convert(formula, display=display)
    except Exception:  # latex2mathml documents no errors
        return match[0]
    if display == "block":  # a wide formula scrolls, so the keyboard has to reach it
        mathml = mathml.replace("<math ", '<math tabindex="0" ', 1)
    return mathml


# The page's frame and style are shared with the explorer's page.
LOADER = ChoiceLoader([PackageLoader("vae_study"), PackageLoader("vae_core.explorer", "web")])
TEMPLATES = Environment(loader=LOADER, autoescape=select_autoescape(["html.j2"]), trim_blocks=True)
TEMPLATES.filters["markdown"] = render_markdown
TEMPLATES.filters["question"] = page_question
EXPORTER = HTMLExporter(
    raw_template=LOADER.get_source(TEMPLATES, "notebook.html.j2")[0],
    filters={"markdown2html": render_markdown},
    # A page shows the parameters that were used, not those that are written in the notebook.
    config=Config(TagRemovePreprocessor={"enabled": True, "remove_cell_tags": ["parameters"]}),
)
