"""`python -m vae_study report` (or `study`, `answer`, …): what the Makefile calls."""

import os
import sys
from contextlib import suppress
from functools import partial

from rich.console import Console

INTERRUPTED = 130  # the exit code after Ctrl-C


def main(command: str) -> int:
    """Carry out one command; return the exit code."""
    try:
        # Imported here, since workers import this module too, and should start quickly.
        with Console().status("starting"):
            from vae_core.storage import print_error
            from vae_study import answer, publish, report, sweep
            from vae_study.settings import STUDY_DEFAULTS, Settings

        commands = {
            "report": report.report,
            "study": partial(report.report, all_seeds=True),
            "answer": answer.run_command,
            "sweep": sweep.run_command,
            "publish": publish.publish,
        }
        defaults = STUDY_DEFAULTS if command in ("study", "answer", "publish") else {}
        settings = Settings.from_environment(**defaults)
        return commands[command](settings) or 0
    except (ValueError, OSError) as error:
        print_error(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        print(
            "stopped; finished epochs are kept, and the same command (without RETRAIN=1) goes on",
            file=sys.stderr,
        )
        return INTERRUPTED


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    if code == INTERRUPTED:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # the kernels of notebooks end with this process; no need to wait for them
    sys.exit(code)
