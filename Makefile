# `make demo` shows what the package does; `make test` tells whether an installation works, `make test-all`
# runs every test.
# All keep their own Python in .venv.
# On Windows, or without make, the README gives the same as plain pip lines.

PYTHON ?= python3
DATA ?=
GROUPS_CSV ?=
OUT ?= demo-report

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet

MINUTES ?= 1

.PHONY: demo test test-napari test-all test-processors docs gallery explore campaign lint wheel test-lowest clean

demo: $(VENV)/.installed
	$(BIN)/hypervlad $(if $(DATA),train "$(DATA)" $(if $(GROUPS_CSV),--groups "$(GROUPS_CSV)") \
		--report "$(OUT)" -o "$(OUT)/model.hvlad",demo -o "$(OUT)")

# A module's tests run in one process, so that its fixtures are built once. Modules with few, long tests
# come first: at the end, one process would work alone.
PARALLEL := -n 2 --dist loadscope --no-loadscope-reorder
# Threads that wait for their next task sleep, as hypervlad lets them, which the tests import after torch.
# Modules are compiled once, not by each of the programs that tests start.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest $(PARALLEL)

test: $(VENV)/.test-installed
	$(PYTEST) --durations=20 $(ARGS)

# The plugin for napari, which takes 450 MB more in .venv; no screen is needed. Not part of CI.
test-napari: $(VENV)/.test-installed
	$(PIP) -e ".[napari]"
	HYPERVLAD_REQUIRED=napari QT_QPA_PLATFORM=offscreen $(PYTEST) tests/unit/particles/test_napari_plugin.py $(ARGS)

# The rest too, which takes long: twelve large networks, clusters, whole benchmarks. Not part of CI.
test-all: $(VENV)/.test-installed
	$(PYTEST) --durations=20 -m "full or not full" $(ARGS)

# The unit tests, examples and scikit-learn's checks, or the tests of ARGS, as older processors and more threads run them: see
# tests/processors.py. SETTING="oldest" chooses one of its settings.
SETTING ?=

test-processors: $(VENV)/.test-installed
	$(BIN)/python -m tests.processors $(if $(SETTING),"$(SETTING)") $(PARALLEL) $(if $(ARGS),$(ARGS),tests/unit tests/conformance hypervlad)

# The site, in docs/_build/html; `make docs` leaves out what the examples show, `make gallery` runs them.
SPHINX := $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --builder html docs docs/_build/html

docs: $(VENV)/.test-installed
	$(SPHINX) -D plot_gallery=0 $(ARGS)

gallery: $(VENV)/.test-installed
	$(SPHINX) $(ARGS)

# New random examples for the tests that take any. Add each failure to its test as an @example.
explore: $(VENV)/.test-installed
	$(PYTEST) --hypothesis-profile=explore -m hypothesis tests $(ARGS)

# Attacks with generated input, in processes of bounded memory and time. For a night: MINUTES=480.
campaign: $(VENV)/.test-installed
	$(BIN)/python -m tests.campaign --minutes $(MINUTES) $(ARGS)

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.rules
	$(BIN)/repo-review --show err .

# A source archive, a wheel built from it, and a trial of the wheel in an environment of its own.
wheel: $(VENV)/.test-installed
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python tests/packaging/try_wheel.py dist/*.whl

$(VENV)/.installed: setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hypervlad needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	@echo "Installing hypervlad and PyTorch into $(VENV): a few minutes, once."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[fast,formats,review]"
	@touch $@

# Older Pythons make environments with a pip that does not know groups of dependencies.
$(VENV)/.test-installed: $(VENV)/.installed
	$(PIP) "pip>=25.1"
	$(PIP) -e ".[formats,review,distributed,timm,fast,ocr,xlsx]" --group dev
	@touch $@

# The unit tests and scikit-learn's checks with the lowest versions that pyproject.toml allows, which were built for
# Python 3.11 and 3.12. On Linux, it downloads 3 GB, nearly all of it PyTorch; not part of CI. Old
# versions give warnings of their own, so these are no errors.
test-lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/python -m uv pip install --python .venv-lowest/bin/python --resolution lowest-direct -e ".[formats,review,timm,fast,ocr,xlsx]" --group test
	$(subst $(BIN),.venv-lowest/bin,$(PYTEST)) -W default tests/unit tests/conformance $(ARGS)

clean:
	rm -rf docs/_build docs/gallery docs/learn docs/reference/generated docs/reference/commands.md
	find docs/benchmarks -name '*.md' ! -name scaling.md -delete
	rm -rf $(VENV) .venv-lowest build dist *.egg-info demo-report campaign-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
