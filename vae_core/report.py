"""Executed notebooks become pages that need no network, and `index.html` leads to them.

`python -m vae_core.report report 01_fc_vs_cvae-p1 02_tuning …` takes the pages in that order.
Outputs of cells tagged `report` are shown on the index too.
"""

import json
import platform
import re
import sys
from datetime import datetime
from html import escape
from importlib.metadata import version
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from vae_core.files import PROJECT, write

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
.prompt { display: none; }
.failed { color: #b00020; } .skipped, .waiting { color: #8a6d00; } .done { color: #1b7a3d; }
"""


def page(notebook: nbformat.NotebookNode, name: str) -> str:
    """Return an executed notebook as one HTML page, maths as MathML, pictures inside."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = MATHS.sub(_mathml, cell.source)
    # Anchors would make headings pass through an XML parser, which breaks the maths in them.
    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True)
    body = exporter.from_notebook_node(notebook)[0]
    return _document(name, f'<p><a href="index.html">← the report</a></p>{body}')


def index(report: Path, names: list[str]) -> str:
    """Return the page that leads to those in the folder `report`, also to ones not executed."""
    rows, sections, parameters = [], [], []
    for name in names:
        status, notebook = _read(report, name)
        state, link = status["status"], f'<a href="{name}.html">%s</a>'
        what = escape(state + (f": {status['error']}" if status["error"] else ""))
        rows.append(
            f'<tr><td class="text">{link % name if notebook else name}</td>'
            f'<td class="text {state}">{what}</td><td>{status["seconds"]}</td></tr>'
        )
        parameters.append(status["parameters"])
        if notebook and (outputs := _tagged_outputs(notebook)):
            heading = notebook.cells[0].source.partition("\n")[0].lstrip("# ")
            title = " – ".join(filter(None, (heading, name.partition("-")[2])))
            sections += [f"<h2>{link % escape(title)}</h2>", *outputs]
    packages = ("vae-core", "torch", "torchvision", "numpy", "papermill")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    datasets, seeds = (
        ", ".join(dict.fromkeys(str(used.get(key)) for used in parameters if used)) or "none"
        for key in ("dataset", "seed")
    )
    run = f"Data: {datasets}. Seed: {seeds}. Python {platform.python_version()}, {versions}."
    body = [
        "<h1>Fully connected against convolutional VAE</h1>",
        f"<p>{escape(run)} Written {datetime.now():%Y-%m-%d %H:%M}.</p>",
        '<h2>Pages</h2><div class="table"><table>',
        '<tr><th class="text">page</th><th class="text">state</th><th>seconds</th></tr>',
        *rows,
        "</table></div>",
        *sections,
    ]
    return _document("VAE report", "\n".join(body))


def _document(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _read(report: Path, name: str) -> tuple[dict, nbformat.NotebookNode | None]:
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


def _tagged_outputs(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the pictures and tables of the cells tagged `report`."""
    cells = [cell for cell in notebook.cells if "report" in cell.metadata.get("tags", [])]
    shown = []
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        if "image/png" in data:
            code = data["image/png"].strip()
            shown.append(f'<p><img alt="figure" src="data:image/png;base64,{code}"></p>')
        elif "text/html" in data:
            shown.append(f'<div class="table">{data["text/html"]}</div>')
        elif "text" in output:
            shown.append(f"<pre>{escape(output['text'])}</pre>")
    return shown


def _mathml(match: re.Match) -> str:
    block, inline = match.groups()
    return convert(block or inline, display="block" if block else "inline")


def main(arguments: list[str] | None = None) -> int:
    """Write the pages and the index of a folder; return the exit code."""
    folder, *names = sys.argv[1:] if arguments is None else arguments
    report = Path(folder)
    try:
        for name in names:
            _, notebook = _read(report, name)
            if notebook:
                write(report / f"{name}.html", page(notebook, name))
            else:
                (report / f"{name}.html").unlink(missing_ok=True)
        write(report / "index.html", index(report, names))
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
