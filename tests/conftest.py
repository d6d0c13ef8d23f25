import os
import shutil
import signal
from pathlib import Path

import pytest
from helpers import tiny_run
from hypothesis import settings

os.environ["TQDM_DISABLE"] = "1"  # pytest's plugins load ipykernel, which looks like Jupyter
# Where tests run in a shell's background, the processes that they start would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes says something about the machine, and nothing about the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# Files whose tests start many processes. They begin first, so that none of them is left at the end
# for one worker while the others have nothing to do.
SLOW_FILES = ["test_engine", "test_report", "test_publish", "test_fingerprints", "test_recipes"]


def pytest_collection_modifyitems(items):
    """Let the slow files begin."""
    ranks = {name: rank for rank, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(SLOW_FILES)))


@pytest.fixture
def root(tmp_path):
    """Where data sets are kept."""
    return tmp_path / "root"


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run, to be read only."""
    return tiny_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def finished(trained, tmp_path):
    """The folder of that run in `tmp_path`, where it may be harmed."""
    place = tmp_path / trained.folder.parent.name / trained.folder.name
    return Path(shutil.copytree(trained.folder, place))
