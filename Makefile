# Each target sets up what it needs and is safe to repeat. The only requirement is Python 3.11 or newer with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
# Most tests wait for servers and processes, which the tests of a file share. (Not --dist loadgroup: with pytest 9.2,
# xdist 3.8 makes each test a group of its own, and nobody is told: pytest-xdist issue 1386.)
TEST_PROCESSES ?= 3
# The demo has a Prefect of its own, whatever the environment names.
PREFECT := $(CURDIR)/$(DEMO)/.rag-index/prefect
OWN_PREFECT := env -u PREFECT_API_URL -u PREFECT_PROFILE PREFECT_HOME=$(PREFECT) DO_NOT_TRACK=1
PORT ?= 4200
QUERY := wait until several threads have reached the same point

DOCS := build/docs

.PHONY: index ui test lint docs release environment clean

index: environment
	@test -f $(DEMO)/rag-index.toml || $(BIN)/rag-index sample pydocs --out $(DEMO)/pydocs.db --settings
	@(umask 077; mkdir -p $(PREFECT))
	RAG_INDEX_CONFIG=$(DEMO)/rag-index.toml PREFECT_LOGGING_LEVEL=WARNING DASK_LOGGING__DISTRIBUTED=warning \
		$(OWN_PREFECT) $(BIN)/python -P -m flows.index_all
	@echo
	$(BIN)/rag-index --config $(DEMO)/rag-index.toml status
	@echo
	$(BIN)/rag-index --config $(DEMO)/rag-index.toml search "$(QUERY)" --limit 2
	@echo
	@echo "make ui shows this run in Prefect's page."

# Prefect's page on the demo's runs, until Ctrl-C; where port 4200 is taken, make ui PORT=4300.
ui: $(PREFECT)/prefect.db
	$(OWN_PREFECT) PREFECT_API_URL=http://127.0.0.1:$(PORT)/api PREFECT_SERVER_UI_API_URL=http://127.0.0.1:$(PORT)/api \
		PREFECT_SERVER_ANALYTICS_ENABLED=false $(BIN)/prefect server start --port $(PORT)

$(PREFECT)/prefect.db:
	@$(MAKE) index

# Without bytecode each of the hundreds of processes that tests start would compile the product anew.
unexport PYTHONDONTWRITEBYTECODE

test: environment
	$(BIN)/python -m pytest -m "not long" -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pages as a site in build/docs/site, whose links are checked. The generator has an environment of its own.
docs:
	@test -x $(DOCS)/venv/bin/zensical || { $(PYTHON) -m venv $(DOCS)/venv && \
		$(DOCS)/venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		zensical mkdocstrings-python; }
	@rm -rf $(DOCS)/pages $(DOCS)/site && mkdir -p $(DOCS)/pages
	@cp -r README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE docs deployments examples benchmarks $(DOCS)/pages
	@find $(DOCS)/pages -name '*.md' -exec sed -i -E 's/^```([a-z]+) .+$$/```\1/' {} +
	$(DOCS)/venv/bin/zensical build --strict

# Date the changelog, build, try the wheel, commit and tag; the end says what a person does then.
release: environment
	.ci/release

environment: $(VENV)/installed

# constraints.txt is a tested set of versions; the exact set matters (see the pins in pyproject.toml).
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11: use a newer one, such as make PYTHON=python3.12 …"; exit 1; }
	@echo "Setting up $(VENV) (once, about a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[postgresql,mariadb,mcp,code,files,fastembed]" --group dev
	@touch $@

clean:
	rm -rf $(VENV) $(DEMO) dist .pytest_cache .mypy_cache .ruff_cache
