import os
import signal

os.environ["TQDM_DISABLE"] = "1"  # pytest's plugins load ipykernel, which looks like Jupyter
# Where tests run in a shell's background, the processes that they start would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
