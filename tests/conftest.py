import os

os.environ["TQDM_DISABLE"] = "1"  # pytest's plugins load ipykernel, which looks like Jupyter
