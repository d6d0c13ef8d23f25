"""What `make` runs: the list of runs, the engine, the pages, publishing."""
