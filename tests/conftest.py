import os
import signal

from hypothesis import settings

os.environ["TQDM_DISABLE"] = "1"  # pytest's plugins load ipykernel, which looks like Jupyter
# Where tests run in a shell's background, the processes that they start would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes says something about the machine, and nothing about the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
