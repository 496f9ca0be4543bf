# `make check`, `make test` and `make demo` set up everything they need; PYTHON is any Python from 3.11 on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo-output
WEB := docs/web

.PHONY: demo demo-train check test lint format clean

$(VENV)/ready: pyproject.toml
	@echo "Installing PyTorch and the rest into $(VENV): 8 GB, some minutes in which pip says nothing."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# onnxruntime-web, for the test of docs/web, which is skipped where this is not to be had.
$(WEB)/node_modules/ready: $(WEB)/package.json
	if command -v npm >/dev/null; then cd $(WEB) && \
		npm install --no-package-lock --ignore-scripts --no-audit --no-fund --silent && \
		touch node_modules/ready || echo "npm could not install onnxruntime-web"; fi

demo: $(VENV)/ready
	$(BIN)/deepregions demo --out $(DEMO)

# Draws faces, trains toy networks on them in minutes, and scores with these.
demo-train: $(VENV)/ready
	rm -rf $(DEMO)-drawn
	$(BIN)/python examples/drawn_faces/make_store.py --out $(DEMO)-drawn --count 800
	$(BIN)/deepregions demo --out $(DEMO) --train $(DEMO)-drawn

# Test files side by side, one process a core: threads of several would be in each other's way.
# In the order of tests/conftest.py, not those of most tests first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 \
	--dist loadfile --no-loadscope-reorder

# The quick loop, under two minutes on two cores.
check: lint
	$(PYTEST) -q -m "not slow"

test: lint $(WEB)/node_modules/ready
	$(PYTEST)

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(DEMO) $(WEB)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
