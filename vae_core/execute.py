"""Execute one notebook with papermill and say in `<output>.json` how it went.

`python -m vae_core.execute notebooks/NAME.py report/NAME-p1.ipynb params=p1 dataset=shapes …`

The executed notebook appears at `<output>` only when every cell ran. A failed one is kept as
`<output>.failed.ipynb` beside `<output>.log`; one whose data set is missing counts as skipped.
"""

import argparse
import ast
import json
import sys
import time
from pathlib import Path
from typing import Any

import jupytext
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from vae_core.files import write


def notebook_parameters(notebook: Path) -> dict[str, str]:
    """Return the names and the written values of the cell tagged `parameters`.

    Raises FileNotFoundError without the notebook, ValueError if it is no notebook or has none.
    """
    if not notebook.is_file():
        raise FileNotFoundError(f"{notebook} does not exist; see the folder notebooks/")
    # jupytext, its YAML reader and ast have no error in common.
    try:
        for cell in jupytext.read(notebook).cells:
            if "parameters" in cell.metadata.get("tags", []):
                nodes = [n for n in ast.parse(cell.source).body if isinstance(n, ast.Assign)]
                return {node.targets[0].id: repr(ast.literal_eval(node.value)) for node in nodes}
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{notebook} cannot be read as a notebook: {reason}") from error
    raise ValueError(f"{notebook} has no cell tagged 'parameters'; tag the one with its settings")


def parse_parameters(notebook: Path, settings: list[str]) -> dict[str, Any]:
    """Turn `name=value` texts into values of the type that the notebook has for the name.

    Where the notebook's own value is a text, the value is taken as it stands; elsewhere it is
    read as Python writes it (5, 0.3, None, True, [0, 1]). Raises ValueError where the notebook
    has no such parameter or the value cannot be read.
    """
    known, values = notebook_parameters(notebook), {}
    for name, _, text in (setting.partition("=") for setting in settings):
        if name not in known:
            raise ValueError(f"{notebook.name} has no {name!r}; it has {', '.join(known)}")
        try:
            is_text = isinstance(ast.literal_eval(known[name]), str)
            values[name] = text if is_text else ast.literal_eval(text)
            json.dumps(values[name])  # papermill and the report store it so
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise ValueError(f"{name} is {text!r}; write it as {known[name]} is written") from None
    return values


def execute(notebook: Path, output: Path, parameters: dict[str, Any], timeout: int) -> dict:
    """Execute a notebook; return (and write to `<output>.json`) what happened.

    `parameters` replace the notebook's own values; a cell may take `timeout` seconds. What is
    returned has "notebook", "parameters", "status" ("done", "failed" or "skipped"), "error" and
    "seconds". Raises OSError if something cannot be written; former files are then untouched.
    """
    began = time.perf_counter()
    scratch, failed, log = map(output.with_suffix, (".running.ipynb", ".failed.ipynb", ".log"))
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            status, error, trace = _run(notebook, scratch, parameters, timeout)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(error.errno, f"{output} could not be written ({reason})") from error
        result = {"notebook": notebook.stem, "parameters": parameters, "status": status}
        result |= {"error": error, "seconds": round(time.perf_counter() - began, 1)}
        # What needs space is written first, so that a full disk takes nothing away.
        if trace:
            write(log, trace)
        write(output.with_suffix(".json"), json.dumps(result, indent=2) + "\n")
        kept = {"done": {output}, "failed": {failed, log}, "skipped": {log}}[status]
        for path in {output, failed} & kept:
            scratch.replace(path)
        for path in {output, failed, log} - kept:
            path.unlink(missing_ok=True)
    finally:
        scratch.unlink(missing_ok=True)
    return result


def _run(notebook, scratch, parameters, timeout):
    options = {"kernel_name": "python3", "language": "python", "cwd": notebook.parent}
    options |= {"progress_bar": False, "execution_timeout": timeout}
    try:
        jupytext.write(jupytext.read(notebook), scratch)
        executed = papermill.execute_notebook(scratch, scratch, parameters, **options)
    except PapermillExecutionError as error:
        status = "skipped" if error.ename == "DatasetMissing" else "failed"
        what = f"cell {error.exec_count}: {error.ename}: {error.evalue}"
        return status, what, "\n".join(error.traceback)
    except CellTimeoutError as error:
        return "failed", f"a cell took longer than {timeout} s", str(error)
    except DeadKernelError as error:
        return "failed", "the kernel died (out of memory, perhaps)", str(error)
    for cell in executed.cells:  # papermill takes sys.exit for success
        if any(shown.output_type == "error" for shown in cell.get("outputs", [])):
            return "failed", f"cell {cell.execution_count} ended the notebook", str(cell.outputs)
    return "done", "", ""


def main(arguments: list[str] | None = None) -> int:
    """Execute one notebook from a terminal; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m vae_core.execute")
    parser.add_argument("notebook", type=Path, help="the .py file")
    parser.add_argument("output", type=Path, help="where the executed .ipynb goes")
    parser.add_argument("settings", nargs="*", metavar="name=value", help="notebook parameters")
    parser.add_argument("--label", default="", help="what the terminal shows before the name")
    parser.add_argument("--timeout", type=int, default=7200, help="seconds that a cell may take")
    options = parser.parse_args(arguments)
    page = f"{options.label}{options.output.stem}"
    try:
        parameters = parse_parameters(options.notebook, options.settings)
        print(f"{page} …", flush=True)
        result = execute(options.notebook, options.output, parameters, options.timeout)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{page} stopped; make report goes on from here")
        return 130
    failed = result["status"] == "failed"
    log = failed and f"the log is {options.output.with_suffix('.log')}"
    lines = [f"{page} {result['status']} in {result['seconds']} s", result["error"], log]
    print("\n    ".join(filter(None, lines)), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
