# make demo   set up what is missing, segment a generated slide, leave a picture in demo-out/
# make test   set up what is missing, run every test (in a virtual screen)
# make lint   ruff and mypy          make bench   the measured comparisons, in build/bench.json
# make accuracy   the tables of docs/results.md, from the shared data
# make faults N=200 SEED=1   kills what paints and distils, and counts what was lost; make soak MINUTES=5   looks for leaks
# make docs   the documentation as a site in build/site, offline      make dist   wheel and sdist, checked
# make pictures   those of the documentation, and every dock in both themes, into build/pictures to be looked at
# make tutorial   follows docs/tutorial.md with the mouse and compares the mask at its end; pictures in build/tutorial
# make walkthrough   the whole loop in a window, with the mouse: pictures and figures in build/walkthrough
#
# PYTHON=python3.12 picks another Python (3.11 or newer). PIP_ARGS is handed to pip, for example
# PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" for the small CPU build of torch.

SHELL := /bin/bash
VENV ?= .venv
PYTHON ?= python3
PIP_ARGS ?=
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint bench accuracy walkthrough tutorial pictures docs dist faults soak clean
.DELETE_ON_ERROR:

demo: $(VENV)/.core
	$(BIN)/histodistill demo --out demo-out

test: $(VENV)/.dev
	@scripts/with-display $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev build/peers/napari-wsi/.ready
	@scripts/with-display $(BIN)/python -m pytest tests/benchmarks -s --override-ini "addopts=-ra --import-mode=importlib"

# What the benchmarks compare with, in an environment of its own. Where it cannot be installed they say so and go on.
build/peers/napari-wsi/.ready: constraints.txt | $(BIN)/python
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt "napari-wsi[openslide]==1.3.0" "napari[pyqt6]" openslide-bin \
	  && touch $@ || { rm -rf $(@D); echo "napari-wsi cannot be installed here: its figures will be missing"; }

# The evidence of docs/results.md: hours of CPU, resumable. make accuracy DATA=folder ONLY="teacher-gm-*"
DATA ?= $(or $(HISTODISTILL_DATA),../shared/data)
ONLY ?= *
accuracy: $(VENV)/.dev
	$(BIN)/python scripts/accuracy.py "$(DATA)" --only $(foreach pattern,$(ONLY),'$(pattern)')

walkthrough: $(VENV)/.dev
	@PYTHONPATH=scripts scripts/with-display $(BIN)/python -m walkthrough $(WALK_ARGS)

N ?= 200
SEED ?= 1
faults: $(VENV)/.dev
	@$(BIN)/python tests/faults/harness.py --kills $(N) --seed $(SEED)

MINUTES ?= 5
soak: $(VENV)/.dev
	@$(BIN)/python tests/faults/soak.py --minutes $(MINUTES)

tutorial: $(VENV)/.dev
	@PYTHONPATH=scripts scripts/with-display $(BIN)/python -m walkthrough.tutorial $(WALK_ARGS)

pictures: $(VENV)/.dev
	@PYTHONPATH=scripts scripts/with-display $(BIN)/python -m walkthrough.docs $(WALK_ARGS)

docs: $(VENV)/.dev
	@$(BIN)/python scripts/model_cards.py --check || { echo "Run: $(BIN)/python scripts/model_cards.py"; exit 1; }
	@$(BIN)/mkdocs build
	@echo "Open build/site/index.html"

dist: $(VENV)/.dev
	@rm -rf dist
	@$(BIN)/python -m build
	@$(BIN)/twine check --strict dist/*

# The environment: one stamp for what the command line needs, one more for tests and a window.
$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the package and what it needs (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.core
	@scripts/system-packages window
	@echo "Installing napari's window and what the tests need"
	@$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e ".[all,test,dev,docs]"
	@touch $@

$(BIN)/python:
	@scripts/system-packages python
	@echo "Creating the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip

clean:
	rm -rf $(VENV) demo-out build dist
