"""What `make` runs: settings, the list of runs, the engine, pages, sweeps, publishing."""
