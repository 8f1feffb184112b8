# Each target does all its own set-up, in .venv. Any Python from 3.11 on will do: make demo PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# what Lookalike is measured against pins versions of its own
PEERS := .venv-peers/.ready
# one more than there are cores, as many tests wait for something
WORKERS = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 1)')

.DEFAULT_GOAL := help
.PHONY: help demo test test-pooler check fix bench lock clean

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

demo: $(READY) ## draw sample pictures, search them, write a contact sheet
	$(BIN)/lookalike demo

test: $(READY) ## run every test, on all cores
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

test-pooler: $(READY) ## run the tests of searches through PgBouncer
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --through-pooler tests/integration/test_search.py \
		tests/integration/test_filtered_search.py

check: $(READY) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fix: $(READY) ## put format and imports right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) $(PEERS) ## measure against psycopg by hand and against others: BENCH_N=20000, CHAPTERS="search peers"
	$(BIN)/python -m benchmarks $(CHAPTERS)

lock: ## write constraints.txt anew, from the newest releases
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet --upgrade '.[all,dev]'
	.venv-lock/bin/pip freeze --exclude lookalike | sed -E '/ @ /d' > constraints.txt
	rm -rf .venv-lock

clean: ## remove what the other targets made
	rm -rf .venv .venv-peers .venv-lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lookalike needs Python 3.11 or newer: make … PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $(READY)

# one that cannot be had here must not keep the others away
$(PEERS): benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r $< || \
		grep -v '^#' $< | while read -r peer; do .venv-peers/bin/pip install --quiet "$$peer" || true; done
	@touch $(PEERS)
