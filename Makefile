SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.SECONDARY:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

PYTHON  ?= python3
DATASET ?= shapes
FACES   ?= faces
SETS    ?= p1 p2 p3
SEED    ?= 0
SEEDS   ?= $(SEED)
RETRAIN ?=

# The built-in pictures are learned in a few minutes; other data sets are trained to early stopping.
built_in = $(filter shapes faces,$(1))
MAX_EPOCHS ?=
epochs = $(or $(MAX_EPOCHS),$(if $(call built_in,$(1)),10,100))
# The study uses 30 % of CelebA, and all of what anybody puts in its place.
fraction = $(if $(filter celeba,$(1)),0.3,1.0)
# Notebooks run in notebooks/, so a path that was given here is made absolute.
place = $(if $(filter shapes faces cifar10 celeba,$(1)),$(1),$(shell $(PYTHON) -c 'import os, sys; print(os.path.abspath(os.path.expanduser(sys.argv[1])))' '$(1)'))

VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
LIMIT   ?= None
PRECISION ?= auto
REPORT ?= report

export TQDM_DISABLE := 1
export JUPYTER_PREFER_ENV_PATH := 1
export IPYTHONDIR := $(CURDIR)/.ipython
unexport JUPYTER_PATH
unexport PYTHONPATH

.PHONY: help report study gallery publish test lab pair reference bench clean FORCE

help: ## print every target with a line on what it does
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

# The environment

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || { \
	    echo "Python 3.10, 3.11 or 3.12 is needed (NumPy < 2); '$(PYTHON)' is $$($(PYTHON) -V 2>&1 | tail -n 1): choose one with make PYTHON=python3.12"; exit 1; }
	@echo "building the environment in $(VENV) (a few minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

lab: $(READY) ## open JupyterLab on the notebooks
	@env -u TQDM_DISABLE $(BIN)/jupyter lab --notebook-dir notebooks

# The report: each page is an executed notebook

PAGES := $(SETS:%=$(REPORT)/01_fc_vs_cvae-%.ipynb) $(REPORT)/02_tuning.ipynb \
         $(SETS:%=$(REPORT)/03_interpolation-%.ipynb) $(REPORT)/04_celeba.ipynb \
         $(REPORT)/05_posterior_collapse.ipynb
SETTINGS := $(REPORT)/settings.txt
MODULES  := $(wildcard vae_core/*.py)

report: $(READY) ## execute all notebooks and write report/index.html; DATASET= FACES= SEEDS= MAX_EPOCHS= RETRAIN=1
	@$(MAKE) --no-print-directory --keep-going $(REPORT)/index.html || { $(INDEX); exit 1; }
	@echo "the report is $(REPORT)/index.html"

INDEX = $(BIN)/python -m vae_core.report $(REPORT) $(notdir $(basename $(PAGES)))

$(REPORT)/index.html: $(PAGES)
	@$(INDEX)

# With make -j, each process gets its share of the cores.
JOBS   = $(patsubst -j%,%,$(filter -j%,$(MAKEFLAGS)))
SHARE  = $(if $(filter -j%,$(MAKEFLAGS)),OMP_NUM_THREADS=$$((cores = $$(getconf _NPROCESSORS_ONLN) / $(or $(JOBS),999), cores > 1 ? cores : 1)))
NUMBER = [$$(printf '%s\n' $(PAGES) | grep -nxF '$@' | cut -d: -f1)/$(words $(PAGES))]
EXECUTE = @$(SHARE) $(BIN)/python -m vae_core.execute --label "$(NUMBER) " $< $@
COMMON  = seed=$(SEED) limit=$(LIMIT) precision=$(PRECISION)
ANEW    = $(if $(filter-out 0,$(RETRAIN)),retrain=True)
REAL    = 'dataset=$(call place,$(DATASET))' fraction=$(call fraction,$(DATASET)) max_epochs=$(call epochs,$(DATASET))
FACIAL  = 'dataset=$(call place,$(FACES))' fraction=$(call fraction,$(FACES)) max_epochs=$(call epochs,$(FACES))

$(PAGES): $(MODULES) $(SETTINGS) $(if $(filter-out 0,$(RETRAIN)),FORCE) | $(READY)

$(SETS:%=$(REPORT)/01_fc_vs_cvae-%.ipynb): $(REPORT)/01_fc_vs_cvae-%.ipynb: notebooks/01_fc_vs_cvae.py
	$(EXECUTE) params=$* $(REAL) $(COMMON) $(ANEW)

$(REPORT)/02_tuning.ipynb: notebooks/02_tuning.py | $(SETS:%=$(REPORT)/01_fc_vs_cvae-%.ipynb)
	$(EXECUTE) 'params=$(SETS)' 'seeds=$(SEEDS)' $(REAL) $(COMMON)

$(SETS:%=$(REPORT)/03_interpolation-%.ipynb): $(REPORT)/03_interpolation-%.ipynb: notebooks/03_interpolation.py | $(REPORT)/01_fc_vs_cvae-%.ipynb
	$(EXECUTE) params=$* $(REAL) $(COMMON)

$(REPORT)/04_celeba.ipynb: notebooks/04_celeba.py
	$(EXECUTE) params=p2 $(FACIAL) $(COMMON) $(ANEW)

# One of its three runs is that of 01 with p2.
$(REPORT)/05_posterior_collapse.ipynb: notebooks/05_posterior_collapse.py | $(filter %-p2.ipynb,$(SETS:%=$(REPORT)/01_fc_vs_cvae-%.ipynb))
	$(EXECUTE) params=p2 $(REAL) $(COMMON) $(ANEW)

# Written only when it changes, so that other settings execute the notebooks again.
$(SETTINGS): FORCE
	@mkdir -p $(REPORT)
	@echo '$(REAL) $(FACIAL) $(COMMON) $(SETS) $(SEEDS)' > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

FORCE:

# The whole study: on CIFAR-10 and CelebA, with three seeds, to early stopping, where nothing else is named

unless_named = $(if $(filter file,$(origin $(1))),$(2),$($(1)))
study: PICTURES := $(call unless_named,DATASET,cifar10)
study: PORTRAITS := $(call unless_named,FACES,celeba)
study: TRAINED  := $(call unless_named,SEEDS,0 1 2)
study: LONGEST  := $(or $(MAX_EPOCHS),100)
study: $(READY) ## train everything with seeds 0 1 2 on CIFAR-10 and CelebA, then the report; DATASET= FACES= SEEDS=
	@env -u TQDM_DISABLE $(BIN)/python -m vae_core.study --results $(REPORT)/results.csv \
	    --dataset '$(call place,$(PICTURES))' --fraction $(call fraction,$(PICTURES)) \
	    --faces '$(call place,$(PORTRAITS))' --faces-fraction $(call fraction,$(PORTRAITS)) \
	    --sets '$(SETS)' --seeds '$(TRAINED)' --max-epochs $(LONGEST) --precision $(PRECISION) \
	    $(if $(filter-out None,$(LIMIT)),--limit $(LIMIT)) $(if $(filter-out 0,$(RETRAIN)),--retrain)
	@$(MAKE) --no-print-directory report DATASET='$(PICTURES)' FACES='$(PORTRAITS)' \
	    SEEDS='$(TRAINED)' SEED=$(firstword $(TRAINED)) MAX_EPOCHS=$(LONGEST) RETRAIN=

gallery: $(READY) ## draw what the published models imagine; no data is needed: report/gallery/
	@$(BIN)/python -m vae_core.gallery $(REPORT)/gallery

# For maintainers: what make study found becomes what the repository shows
publish: $(READY) ## write weights, figures and the README's numbers from RESULTS= of a study on DATASET= FACES=
	@$(BIN)/python -m vae_core.publish $(if $(RESULTS),--results '$(RESULTS)' --datasets '$(DATASET)' '$(FACES)')

# Notebooks as pairs: the .py is the source

pair: $(READY) ## bring the .ipynb up to date with their .py, keeping the outputs
	@cd notebooks && for source in [0-9]*.py; do ../$(BIN)/jupytext --quiet --to ipynb --update $$source || exit 1; done

reference: pair ## execute the notebooks at smoke size and store their outputs, which make test compares
	@rm -rf $(SCRATCH)
	@VAE_CHECKPOINTS=$(SCRATCH) $(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False notebooks/[0-9]*.ipynb

# Tests

SCRATCH := $(CURDIR)/.pytest_cache/checkpoints

test: $(READY) ## lint, unit tests, pair check, and nbval on the notebooks
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet .
	@$(BIN)/pytest tests
	@rm -rf $(SCRATCH)
	@VAE_CHECKPOINTS=$(SCRATCH) $(BIN)/pytest --nbval --nbval-current-env --nbval-cell-timeout 300 \
	    --nbval-sanitize-with notebooks/nbval.cfg notebooks

bench: $(READY) ## measure training speed against a usual notebook's recipe
	@$(BIN)/python benchmarks/bench.py

clean: ## remove the report and the environment; data and checkpoints stay
	rm -rf $(VENV) $(REPORT) .pytest_cache .ruff_cache .hypothesis
