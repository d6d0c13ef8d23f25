.NOTPARALLEL:

# Each setting that is given reaches Python as VAE_<NAME>, character for character, without being
# read by a shell or a second time by make. Meanings and defaults: vae_study/settings.py.
SETTINGS := DATASET FACES SETS SEED SEEDS MAX_EPOCHS LIMIT SIZE PRECISION RETRAIN REPORT RESULTS \
            WORKERS SCHEDULER GRID YES
define pass
export VAE_$(1) = $$(value $(1))
unexport $(1)
endef
given = $(filter-out undefined,$(origin $(1)))
$(foreach name,$(SETTINGS),$(if $(call given,$(name)),$(eval $(call pass,$(name)))))

export VAE_PYTHON = $(or $(value PYTHON),python3)
unexport PYTHON PYTHONPATH PYTHONHOME JUPYTER_PATH PIP_USER PIP_TARGET PIP_PREFIX
export PYTHONUTF8 := 1
export TQDM_DISABLE := 1
export JUPYTER_PREFER_ENV_PATH := 1
export IPYTHONDIR := $(CURDIR)/.ipython

.PHONY: help report study answer sweep publish test lab pair reference bench clean

# A tool that is called as a module of this Python works in any folder and in a copy of it.
RUN := @.venv/bin/python -m

help: ## print every target with a line on what it does
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' Makefile

# An environment whose Python was removed or updated away is built again.
$(shell test -x .venv/bin/python || rm -f .venv/.ready)

# An environment that was begun, maybe with another Python, is cleared first.
# The environment finds the packages by a path relative to itself, so that a copy of this folder
# runs its own code.
.venv/.ready: requirements.txt pyproject.toml
	@"$$VAE_PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
	    { echo "Python 3.10, 3.11 or 3.12 is needed (NumPy < 2): make PYTHON=python3.12"; exit 1; }
	@test ! -L .venv || \
	    { echo ".venv is a link; remove it, so that an environment can be built in its place"; exit 1; }
	@echo "building the environment in .venv (a few minutes, once)"
	@"$$VAE_PYTHON" -m venv --clear .venv || \
	    { echo "Debian has this in python3-venv; a disk without links, as exFAT, cannot hold it"; exit 1; }
	$(RUN) pip install --quiet --disable-pip-version-check -r requirements.txt
	@for packages in .venv/lib/python*/site-packages; do echo ../../../.. > "$$packages/here.pth"; done
	@touch $@

report: .venv/.ready ## train, execute all notebooks, write report/index.html; DATASET= FACES= SETS= …
	$(RUN) vae_study report

study: .venv/.ready ## make report with seeds 0 1 2 on CIFAR-10 and CelebA, and report/results.csv
	$(RUN) vae_study study

answer: .venv/.ready ## train what 06 to 09 compare, at equal budgets, and write report/answer.csv
	$(RUN) vae_study answer

sweep: .venv/.ready ## vary fields of a run, GRID="model=conv,fc beta=0.1,1,10": report/sweep.html, .csv
	$(RUN) vae_study sweep

# For maintainers: the results of make study or make answer become what the repository shows
publish: .venv/.ready ## publish weights, tables, figures and the README's numbers; RESULTS= and settings
	$(RUN) vae_study publish

lab: .venv/.ready ## open JupyterLab on the notebooks
	@env -u TQDM_DISABLE .venv/bin/python -m jupyterlab --notebook-dir notebooks

# Notebooks as pairs: the .py is the source

pair: .venv/.ready ## bring the .ipynb up to date with their .py, keeping the outputs
	$(RUN) vae_study.pairs

# One thread, so that outputs are the same to the last bit whatever else the machine does
reference: export OMP_NUM_THREADS := 1
reference: pair ## execute the notebooks on published runs and store their outputs
	$(RUN) nbconvert --log-level WARN --to notebook --execute --inplace --coalesce-streams \
	    --NotebookExporter.preprocessors=nbconvert.preprocessors.CoalesceStreamsPreprocessor \
	    --ExecutePreprocessor.record_timing=False notebooks/[0-9]*.ipynb

# Whole files are shared out to two processes; the longest ones begin.
SHARED_OUT := -n 2 --dist loadfile --no-loadscope-reorder
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
LONGEST := $(filter notebooks/09% notebooks/07%,$(NOTEBOOKS))
LONGEST_FIRST := $(LONGEST) $(filter-out $(LONGEST),$(NOTEBOOKS))

# The shapes are built before two notebooks need them at the same time: the one that waits would
# print so, which no stored output has.
test: .venv/.ready ## lint, unit tests, pair check, and nbval on the notebooks
	$(RUN) ruff check .
	$(RUN) ruff format --check --quiet .
	$(RUN) pytest $(SHARED_OUT) tests
	@.venv/bin/python -c 'from vae_core.data import load_dataset; load_dataset("shapes")'
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest $(SHARED_OUT) --nbval --nbval-current-env \
	    --nbval-cell-timeout 300 --nbval-sanitize-with notebooks/nbval.cfg $(LONGEST_FIRST)

bench: .venv/.ready ## measure training speed against a usual notebook's recipe
	@.venv/bin/python benchmarks/bench.py

clean: ## remove the environment, caches, and report/ if make report wrote it; keep all else
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
	@test ! -f report/.made-by-make-report || rm -rf report
