# Each target does its own set-up: the first time it fills .venv, after that it starts at once.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Stored outputs are made, and checked, as they look without a browser, a terminal or a GPU.
STORED = REFORMER_VIZ_STATIC=1 TQDM_DISABLE=1 CUDA_VISIBLE_DEVICES=

.PHONY: help lab test test-colab on-colab notebooks-colab lessons-on-colab test-matrix notebooks \
    site students hints pictures sheet lesson-sheet bench bench-views measured

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile

lab: $(VENV)/lab.installed  ## open JupyterLab on the tour
	$(BIN)/python -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) \
	    --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb

test: $(VENV)/test.installed  ## run every check and test, the notebooks' stored outputs included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope tests
	$(BIN)/python -m pytest --nbval -n $(JOBS) --dist loadscope notebooks

test-colab:  ## run what is shown on Colab's versions: its tests, the notebooks, every explorer
	@$(MAKE) --no-print-directory VENV=$(VENV)-colab on-colab

notebooks-colab:  ## check the notebooks' stored outputs on Colab's versions
	@$(MAKE) --no-print-directory VENV=$(VENV)-colab lessons-on-colab

# ipywidgets 7.7.1 itself asks its traits in an old way, which newer traitlets deplore.
OLD = -W 'ignore:Deprecated in traitlets 4.1:DeprecationWarning'

on-colab: $(VENV)/colab.installed
	$(BIN)/python -m pytest $(OLD) -n $(JOBS) --dist loadscope tests/viz
	$(BIN)/python -m pytest $(OLD) tests/colab
	@$(MAKE) --no-print-directory VENV=$(VENV) lessons-on-colab

lessons-on-colab: $(VENV)/colab.installed
	$(BIN)/python -m pytest --nbval -n $(JOBS) --dist loadscope notebooks

# Stored outputs must be right on any machine: with one thread, without the wide instructions of
# newer processors, and on other Pythons, such as PYTHONS='python3.12 python3.13'.
PYTHONS ?=
PLAIN = ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Nehalem

test-matrix: $(VENV)/test.installed  ## check the stored outputs on other threads, processors and Pythons
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbval -n $(JOBS) --dist loadscope notebooks
	$(PLAIN) $(BIN)/python -m pytest --nbval -n $(JOBS) --dist loadscope notebooks
	for python in $(PYTHONS); do \
	    $(MAKE) --no-print-directory VENV=$(VENV)-$$python PYTHON=$$python test || exit 1; done

notebooks: $(VENV)/test.installed  ## make every .ipynb anew from its .py, or LESSON='02 05' alone
	$(STORED) $(BIN)/python tools/run_lessons.py $(LESSON)
	$(BIN)/python -m pytest tests/test_notebooks.py tests/test_lessons.py

site: $(VENV)/test.installed  ## make every lesson a page with living explorers, and the reference
	$(BIN)/python tools/build_site.py site

students: $(VENV)/lab.installed  ## copy the lessons without their solutions into students/
	$(BIN)/python tools/student_copies.py students

hints: $(VENV)/test.installed  ## list for teachers what every checker says to which wrong answer
	$(BIN)/python -m tools.list_hints

pictures: $(VENV)/test.installed  ## draw the README's pictures and tables anew
	$(BIN)/python -m tools.draw_pictures
	$(BIN)/python -m tests.benchmarks.readme

sheet: $(VENV)/test.installed  ## draw every figure and explorer on two sheets in docs/, to look at
	$(BIN)/python -m tools.contact_sheet $(KEEP)

lesson-sheet: $(VENV)/test.installed  ## run every lesson in JupyterLab and photograph its explorers
	$(BIN)/python -m tools.lesson_sheet $(KEEP)

bench:  ## measure every implementation, side by side, in an environment with the peers
	@$(MAKE) --no-print-directory VENV=$(VENV)-bench measured

bench-views: $(VENV)/test.installed  ## time every explorer's controls, in the kernel and on the screen
	$(BIN)/python -m tests.benchmarks.views $(BENCH)

# BENCH takes options, such as BENCH='--quick' or BENCH='--full --name my-machine'.
measured: $(VENV)/bench.installed
	$(BIN)/python -m tests.benchmarks $(BENCH)

# A torch that $(PYTHON) already has is used from where it is (tools/keep_torch.py), so the
# constraints that pip reads are those of the environment, where that torch stands.
INPUTS = requirements.txt constraints.txt pyproject.toml tools/keep_torch.py
INSTALL = $(PYTHON) tools/keep_torch.py $(VENV) $(PINS) && $(PIP) install -c $(VENV)/constraints.txt

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

# Colab's versions stand in place of the project's.
$(VENV)/colab.installed: PINS = tests/colab/requirements.txt
$(VENV)/colab.installed: $(INPUTS) tests/colab/requirements.txt | $(BIN)/pip
	$(INSTALL) -r $(PINS)
	touch $@
