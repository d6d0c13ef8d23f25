"""Execute one notebook with papermill and say in `<output>.json` how it went.

`python -m vae_core.execute notebooks/NAME.py report/NAME-p1.ipynb params=p1 dataset=shapes …`

The executed notebook appears at `<output>` only when every cell ran. A failed one is kept as
`<output>.failed.ipynb` beside `<output>.log`; one whose data set is not on this machine counts as
skipped, which is no failure.
"""

import argparse
import ast
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import jupytext
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from vae_core.files import write

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def notebook_parameters(notebook: Path) -> dict[str, str]:
    """Return the names and the written values of the cell tagged `parameters`.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: it cannot be read, or has no cell tagged `parameters`.
    """
    if not notebook.is_file():
        raise FileNotFoundError(f"{notebook} does not exist; see the folder notebooks/")
    # jupytext, its YAML reader and ast have no error in common.
    try:
        for cell in jupytext.read(notebook).cells:
            if "parameters" in cell.metadata.get("tags", []):
                assignments = [
                    node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)
                ]
                values = {node.targets[0].id: ast.unparse(node.value) for node in assignments}
                for value in values.values():
                    ast.literal_eval(value)
                return values
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{notebook} cannot be read as a notebook: {reason}") from error
    raise ValueError(f"{notebook} has no cell tagged 'parameters'; tag the one with its settings")


def parse_parameters(notebook: Path, settings: list[str]) -> dict[str, Any]:
    """Turn `name=value` texts into values of the type that the notebook has for the name.

    Where the notebook's own value is a text, the value is taken as it stands; elsewhere it is
    read as Python writes it (5, 0.3, None, True, [0, 1]).

    Raises:
        ValueError: the notebook has no such parameter, or the value cannot be read.
    """
    known = notebook_parameters(notebook)
    values = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in known:
            raise ValueError(
                f"{notebook.name} has no parameter {name!r}; it has {', '.join(known)}"
            )
        if isinstance(ast.literal_eval(known[name]), str):
            values[name] = text
            continue
        try:
            values[name] = ast.literal_eval(text)
            json.dumps(values[name])  # papermill and the report store it so
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise ValueError(f"{name} is {text!r}; write it as {known[name]} is written") from None
    return values


def execute(notebook: Path, output: Path, parameters: dict[str, Any], timeout: int) -> dict:
    """Execute a notebook; return (and write to `<output>.json`) what happened.

    Args:
        notebook: its .py file.
        output: the executed .ipynb.
        parameters: what papermill puts in place of the notebook's own values.
        timeout: seconds that one cell may take.

    Returns:
        "notebook", "parameters", "status" ("done", "failed" or "skipped"), "error" and "seconds".

    Raises:
        OSError: something cannot be written; what a former execution left is then untouched.
    """
    began = time.perf_counter()
    scratch, failed = output.with_suffix(".running.ipynb"), output.with_suffix(".failed.ipynb")
    log, status = output.with_suffix(".log"), output.with_suffix(".json")
    result = {"notebook": notebook.stem, "parameters": parameters, "status": "done", "error": ""}
    trace = ""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            document = jupytext.read(notebook)
            document.metadata["kernelspec"] = KERNEL
            jupytext.write(document, scratch)
            papermill.execute_notebook(
                scratch,
                scratch,
                parameters,
                cwd=notebook.parent,
                progress_bar=False,
                execution_timeout=timeout,
            )
            _refuse_early_exit(scratch)
        except EarlyExit as error:
            result |= {"status": "failed", "error": str(error)}
            trace = str(error)
        except PapermillExecutionError as error:
            result["error"] = f"cell {error.exec_count}: {error.ename}: {error.evalue}"
            result["status"] = "skipped" if error.ename == "DatasetMissing" else "failed"
            trace = "\n".join(error.traceback)
        except CellTimeoutError:
            result |= {"status": "failed", "error": f"a cell took longer than {timeout} s"}
            trace = traceback.format_exc()
        except DeadKernelError:
            result |= {"status": "failed", "error": "the kernel died (out of memory, perhaps)"}
            trace = traceback.format_exc()
        except OSError as error:
            reason = error.strerror or error
            raise OSError(
                error.errno,
                f"{output} could not be written ({reason}); what was there before is untouched",
            ) from error
        result["seconds"] = round(time.perf_counter() - began, 1)

        # What needs space is written first, so that a full disk takes nothing away.
        if trace:
            write(log, trace)
        write(status, json.dumps(result, indent=2) + "\n")
        kept = {"done": output, "failed": failed}.get(result["status"])
        if kept:
            scratch.replace(kept)
        for old in {output, failed} - {kept}:
            old.unlink(missing_ok=True)
        if not trace:
            log.unlink(missing_ok=True)
    finally:
        scratch.unlink(missing_ok=True)
    return result


class EarlyExit(RuntimeError):
    """A cell ended the kernel with sys.exit, which papermill takes for success."""


def _refuse_early_exit(executed: Path) -> None:
    for cell in jupytext.read(executed).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise EarlyExit(f"cell {cell.execution_count}: {output.ename}: {output.evalue}")


def main(arguments: list[str] | None = None) -> int:
    """Execute one notebook from a terminal; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m vae_core.execute")
    parser.add_argument("notebook", type=Path, help="the .py file")
    parser.add_argument("output", type=Path, help="where the executed .ipynb goes")
    parser.add_argument("settings", nargs="*", metavar="name=value", help="notebook parameters")
    parser.add_argument("--label", default="", help="what the terminal shows before the name")
    parser.add_argument("--timeout", type=int, default=7200, help="seconds that a cell may take")
    parser.add_argument("--check", action="store_true", help="check the parameters, run nothing")
    options = parser.parse_args(arguments)
    try:
        parameters = parse_parameters(options.notebook, options.settings)
        if options.check:
            return 0
        print(f"{options.label}{options.output.stem} …", flush=True)
        result = execute(options.notebook, options.output, parameters, options.timeout)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{options.label}{options.output.stem} stopped; make report goes on from here")
        return 130
    line = f"{options.label}{options.output.stem} {result['status']} in {result['seconds']} s"
    if result["error"]:
        line += f"\n    {result['error']}"
    if result["status"] == "failed":
        line += f"\n    the log is {options.output.with_suffix('.log')}"
    print(line, flush=True)
    return 1 if result["status"] == "failed" else 0


if __name__ == "__main__":
    sys.exit(main())
