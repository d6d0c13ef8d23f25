"""The explorer in Jupyter: with widgets, or as a static strip where nobody can use them."""

import os

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.core.pylabtools import print_figure

from vae_core.explorer.state import ExplorerState
from vae_core.explorer.widgets import ExplorerWidgets


class Explorer(ExplorerState):
    """An explorer that a notebook displays; see `ExplorerState` for what it shows."""

    def _repr_mimebundle_(self, **_):
        figure = self.static_figure()
        bundle = {"text/plain": repr(self), "image/png": print_figure(figure, base64=True)}
        plt.close(figure)
        if is_interactive():
            bundle = {**ExplorerWidgets(self).box._repr_mimebundle_(), **bundle}
        return bundle


explore = Explorer  # the name to call in a notebook


def is_interactive() -> bool:
    """Return whether a person sees the output: papermill, nbconvert and nbval answer no input."""
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None or os.environ.get("TQDM_DISABLE"):
        return False
    request = kernel.get_parent("shell").get("content", {})
    return bool(request.get("allow_stdin"))
