# Each target does its own set-up: the first time it fills .venv, after that it starts at once.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LESSONS = $(sort $(wildcard notebooks/[0-9]*.py))
# Stored outputs are made, and checked, as they look without a browser, a terminal or a GPU.
STORED = REFORMER_VIZ_STATIC=1 TQDM_DISABLE=1 CUDA_VISIBLE_DEVICES=

.PHONY: help lab test notebooks pictures sheet bench measured

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile

lab: $(VENV)/lab.installed  ## open JupyterLab on the tour
	$(BIN)/python -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) \
	    --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb

test: $(VENV)/test.installed  ## run every check and test, the notebooks' stored outputs included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope tests
	$(BIN)/python -m pytest --nbval notebooks

notebooks: $(VENV)/test.installed  ## make every .ipynb anew from its .py
	$(BIN)/python -m jupytext --to ipynb --update $(LESSONS)
	$(STORED) $(BIN)/python -m nbconvert --to notebook --execute --inplace \
	    --ExecutePreprocessor.store_widget_state=False \
	    --ExecutePreprocessor.record_timing=False $(LESSONS:.py=.ipynb)
	$(BIN)/python -m pytest tests/test_notebooks.py

pictures: $(VENV)/test.installed  ## draw the README's pictures and tables anew
	$(BIN)/python tools/draw_pictures.py
	$(BIN)/python -m tests.benchmarks.readme

sheet: $(VENV)/test.installed  ## draw every figure and explorer on two sheets in docs/, to look at
	$(BIN)/python -m tools.contact_sheet $(KEEP)

bench:  ## measure every implementation, side by side, in an environment with the peers
	@$(MAKE) --no-print-directory VENV=$(VENV)-bench measured

# BENCH takes options, such as BENCH='--quick' or BENCH='--full --name my-machine'.
measured: $(VENV)/bench.installed
	$(BIN)/python -m tests.benchmarks $(BENCH)

# A torch that $(PYTHON) already has is used from where it is (tools/keep_torch.py), so the
# constraints that pip reads are those of the environment, where that torch stands.
INPUTS = requirements.txt constraints.txt pyproject.toml tools/keep_torch.py
INSTALL = $(PYTHON) tools/keep_torch.py $(VENV) && $(PIP) install -c $(VENV)/constraints.txt

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and sys.executable + \
	    " is too old: Python 3.11 or newer is needed, say make PYTHON=python3.11 lab")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/lab.installed: $(INPUTS) | $(BIN)/pip
	$(INSTALL) -r requirements.txt
	touch $@

$(VENV)/test.installed: $(INPUTS) | $(BIN)/pip
	$(INSTALL) -r requirements.txt -e '.[test]'
	touch $(VENV)/lab.installed $@

$(VENV)/bench.installed: $(INPUTS) tests/benchmarks/requirements.txt | $(BIN)/pip
	$(INSTALL) -r tests/benchmarks/requirements.txt
	touch $@
