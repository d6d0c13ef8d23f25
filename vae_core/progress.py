"""The one progress bar of the project."""

import os
import sys

from tqdm import tqdm


def progress(iterable=None, **options) -> tqdm:
    """Wrap `iterable` in a bar for a person who is watching: in a terminal or in Jupyter.

    There is none where nobody watches: with `TQDM_DISABLE` set (the Makefile does so for
    papermill and nbval) or with the error stream going to a file. The text bar is used in
    Jupyter too, because a widget would leave its state in the saved notebook.
    """
    in_jupyter = "ipykernel" in sys.modules
    watched = sys.stderr.isatty() or in_jupyter
    disable = bool(os.environ.get("TQDM_DISABLE")) or not watched
    return tqdm(iterable, disable=disable, leave=False, dynamic_ncols=not in_jupyter, **options)
