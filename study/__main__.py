"""`python -m study report` (or `study`, `answer`, …): what the Makefile calls."""

import os
import sys
from contextlib import suppress
from functools import partial

from rich.console import Console

OF_THE_STUDY = {"dataset": "cifar10", "faces": "celeba", "seeds": (0, 1, 2)}


def main(command: str) -> int:
    """Carry out one command; return the exit code."""
    try:
        # Imported here, since workers import this module too, and should be quick to start.
        with Console().status("starting"):
            from study import answer, pages, publish, sweep
            from study.runs import Settings
            from vae_core.storage import in_one_line, say

        commands = {
            "report": pages.report,
            "study": partial(pages.report, all_seeds=True),
            "answer": answer.command,
            "sweep": sweep.command,
            "publish": publish.publish,
        }
        defaults = OF_THE_STUDY if command in ("study", "answer", "publish") else {}
        return commands[command](Settings.from_environment(**defaults)) or 0
    except (ValueError, OSError) as error:
        say(f"error: {in_one_line(error)}")
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    if code == 130:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # kernels end with this process; their threads would be waited for
    sys.exit(code)
