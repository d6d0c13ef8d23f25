"""Executed notebooks become pages that need no network, and `index.html` leads to them.

`python -m vae_core.report report 01_fc_vs_cvae-p1 02_tuning …` takes the pages in that order.
Outputs of cells tagged `report` are shown on the index too.
"""

import html
import json
import platform
import re
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import latex2mathml.converter
import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from vae_core.files import PROJECT, write

PACKAGES = ("vae-core", "torch", "torchvision", "numpy", "papermill")
MATHS = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL)
STYLE = """
body { font: 17px/1.55 Georgia, serif; color: #222; background: #fff; margin: 0 auto;
       max-width: 60rem; padding: 1rem; }
h1, h2, h3 { font-family: Helvetica, Arial, sans-serif; line-height: 1.2; }
a { color: #00798c; }
img { max-width: 100%; height: auto; }
pre { font-size: 13px; line-height: 1.4; overflow-x: auto; background: #f6f6f4;
      padding: .6rem .8rem; border-radius: 4px; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font: 14px/1.4 Helvetica, Arial, sans-serif; margin: 1rem 0; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
td.text, th.text { text-align: left; }
math[display="block"] { margin: 1rem 0; overflow-x: auto; }
.failed { color: #b00020; } .skipped, .waiting { color: #8a6d00; } .done { color: #1b7a3d; }
"""
PAGE = """{%- extends 'basic/index.html.j2' -%}
{%- block header -%}<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ resources.metadata.name }}</title><style>{{ resources.style }}
.jp-InputPrompt, .jp-OutputPrompt, .prompt, .anchor-link { display: none; }</style></head><body>
<p><a href="index.html">← the report</a></p>{%- endblock header -%}
{%- block footer -%}</body></html>{%- endblock footer -%}"""


def page(notebook: NotebookNode, name: str) -> str:
    """Return an executed notebook as one HTML page, maths as MathML, pictures inside."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = MATHS.sub(_mathml, cell.source)
    # Anchors would make headings pass through an XML parser, which breaks the maths in them.
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"page": PAGE})], template_file="page", exclude_anchor_links=True
    )
    resources = {"metadata": {"name": name}, "style": STYLE}
    return exporter.from_notebook_node(notebook, resources)[0]


def index(report: Path, names: list[str]) -> str:
    """Return the page that leads to all others.

    Args:
        report: the folder with what `execute` wrote.
        names: the pages in their order, also those that were not executed.
    """
    pages = {name: _read(report, name) for name in names}
    body = [
        "<h1>Fully connected against convolutional VAE</h1>",
        f"<p>{_what_was_run(pages)}</p>",
        '<h2>Pages</h2><div class="table"><table>',
        '<tr><th class="text">page</th><th class="text">state</th><th>seconds</th></tr>',
        *(_row(name, status) for name, (status, _) in pages.items()),
        "</table></div>",
    ]
    for name, (status, notebook) in pages.items():
        if status["status"] == "done" and (outputs := _tagged_outputs(notebook)):
            body += [f'<h2><a href="{name}.html">{_title(notebook, name)}</a></h2>', *outputs]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>VAE report</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _read(report: Path, name: str) -> tuple[dict[str, Any], NotebookNode | None]:
    """Return how a page's notebook went and, where it is up to date, the notebook."""
    waiting = {"status": "waiting", "error": "not executed", "seconds": "", "parameters": {}}
    try:
        status = json.loads((report / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return waiting, None
    if status["status"] != "done":
        return status, None
    executed = report / f"{name}.ipynb"
    source = PROJECT / "notebooks" / f"{status['notebook']}.py"
    needed = [source, report / "settings.txt", *Path(__file__).parent.glob("*.py")]
    newest = max((path.stat().st_mtime for path in needed if path.exists()), default=0)
    if not executed.exists() or executed.stat().st_mtime < newest:
        return {**waiting, "error": "out of date, not executed again"}, None
    return status, nbformat.read(executed, as_version=4)


def _row(name: str, status: dict[str, Any]) -> str:
    done = status["status"] == "done"
    label = f'<a href="{name}.html">{name}</a>' if done else name
    state = status["status"] + (f": {html.escape(status['error'])}" if status["error"] else "")
    return (
        f'<tr><td class="text">{label}</td><td class="text {status["status"]}">{state}</td>'
        f"<td>{status['seconds']}</td></tr>"
    )


def _what_was_run(pages: dict[str, tuple[dict[str, Any], Any]]) -> str:
    used = [status["parameters"] for status, _ in pages.values() if status["parameters"]]
    datasets = dict.fromkeys(str(parameters.get("dataset")) for parameters in used)
    seeds = dict.fromkeys(str(parameters.get("seed")) for parameters in used)
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return html.escape(
        f"Data: {', '.join(datasets) or 'none'}. Seed: {', '.join(seeds) or 'none'}. "
        f"Python {platform.python_version()}, {versions}. "
        f"Written {datetime.now():%Y-%m-%d %H:%M}."
    )


def _title(notebook: NotebookNode, name: str) -> str:
    first = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    heading = re.match(r"#\s+(.+)", first)
    suffix = name.partition("-")[2]
    return html.escape((heading[1] if heading else name) + (f" – {suffix}" if suffix else ""))


def _tagged_outputs(notebook: NotebookNode) -> list[str]:
    """Return the pictures and tables of the cells tagged `report`."""
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and "report" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                data = output.get("data", {})
                if "image/png" in data:
                    code = data["image/png"].strip()
                    shown.append(f'<p><img alt="figure" src="data:image/png;base64,{code}"></p>')
                elif "text/html" in data:
                    shown.append(f'<div class="table">{data["text/html"]}</div>')
                elif "text" in output:
                    shown.append(f"<pre>{html.escape(output['text'])}</pre>")
    return shown


def _mathml(match: re.Match) -> str:
    block = match[1] is not None
    return latex2mathml.converter.convert(
        match[1] if block else match[2], display="block" if block else "inline"
    )


def main(arguments: list[str] | None = None) -> int:
    """Write the pages and the index of a folder; return the exit code."""
    folder, *names = sys.argv[1:] if arguments is None else arguments
    report = Path(folder)
    try:
        for name in names:
            status, notebook = _read(report, name)
            target = report / f"{name}.html"
            if status["status"] == "done":
                write(target, page(notebook, name))
            else:
                target.unlink(missing_ok=True)
        write(report / "index.html", index(report, names))
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
