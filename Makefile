PYTHON ?= python3
STYLE ?= to_thread
# A relative path, and below it modules rather than scripts, whose first line holds an absolute path:
# so this works in a folder of any name.
VENV_PYTHON := .venv/bin/python
INSTALLED := .venv/installed
TEMPLATE := {{cookiecutter.project_slug}}
# The slug that the default answers give.
SLUG := chat-service
DEMO := .demo/$(STYLE)
PROJECT := $(DEMO)/$(SLUG)
AS_MADE := $(DEMO)/as-made
BAKED := $(DEMO)/baked
# Neither compared nor removed when the project in .demo is made anew.
STAYS := .venv .env .coverage .coverage.* .*_cache __pycache__ htmlcov .idea .vscode .DS_Store
# Folders too: their times tell when a file is gone.
SOURCES := cookiecutter.json needs_cookiecutter_2_1.py $(shell find hooks '$(TEMPLATE)' -name '__pycache__' -prune -o -print)

# One word, and no foreign one.
ifneq ($(words $(STYLE))$(filter-out to_thread sync async,$(STYLE)),1)
$(error STYLE=$(STYLE) is no handler style: choose to_thread, sync or async)
endif

.PHONY: help demo bench replicas drift test test-quick lint clean

help:
	@echo "make demo      make a project with the default answers and show it at work: needs no key"
	@echo "               (STYLE=to_thread, sync or async)"
	@echo "make bench     measure the styles against LiteLLM and what people write by hand (half an hour)"
	@echo "               (ARGS=--quick only tries it; ARGS=--help has the options)"
	@echo "make replicas  run several replicas behind HAProxy with one Redis, under load (ARGS as above)"
	@echo "make drift     compare the offline OpenAI with the real API, if OPENAI_API_KEY is set"
	@echo "               (costs a fraction of a cent; ARGS=--help says what is compared)"
	@echo "make test      test the template and the projects that it makes (ten minutes)"
	@echo "               (make test-quick: what is generated, but not how it runs)"
	@echo "make lint      check style, format and types of the hooks and tests, and the template's style"
	@echo "make clean     remove what the others made, also what you changed in .demo"

demo: $(BAKED)
	@$(MAKE) --no-print-directory -C $(PROJECT) demo PYTHON=../../../$(VENV_PYTHON)
	@echo
	@echo "The same by hand, beside this folder:"
	@echo "  $(VENV_PYTHON) -m cookiecutter . --no-input --output-dir .. handler_style=$(STYLE)"
	@echo "  cd ../$(SLUG) && make demo"

# Made anew, unless a file of it was changed: the project is compared with a copy of what was made.
$(BAKED): $(INSTALLED) $(SOURCES)
	@mkdir -p $(AS_MADE) $(PROJECT)
	@LC_ALL=C diff -rq $(STAYS:%=-x '%') $(AS_MADE) $(PROJECT) >$(DEMO)/differences || [ $$? -eq 1 ]
	@if grep -v '^Only in $(AS_MADE)' $(DEMO)/differences >&2; then \
		echo "Kept $(PROJECT) as it is, because you changed it; make clean removes it." >&2; \
	else \
		echo "Making a project with the default answers in $(PROJECT) ..." && \
		{ $(VENV_PYTHON) -m cookiecutter . --no-input --default-config --overwrite-if-exists \
			--output-dir $(DEMO)/new handler_style=$(STYLE) >$(DEMO)/log \
			|| { cat $(DEMO)/log >&2; exit 1; }; } && \
		find $(PROJECT) -mindepth 1 -maxdepth 1 $(STAYS:%=! -name '%') -exec rm -rf {} + && \
		rm -rf $(AS_MADE) && mv $(DEMO)/new/$(SLUG) $(AS_MADE) && cp -R $(AS_MADE)/. $(PROJECT) && \
		touch $(BAKED); \
	fi

bench: $(INSTALLED)
	@$(VENV_PYTHON) -m benchmarks $(ARGS)

replicas: $(INSTALLED)
	@$(VENV_PYTHON) -m benchmarks.replicas $(ARGS)

drift: $(INSTALLED)
	@$(VENV_PYTHON) -m drift $(ARGS)

# More processes than cores, for many tests wait. tests/distribution.py says which tests share one.
TOGETHER := -n 3 --no-loadscope-reorder
test: $(INSTALLED)
	$(VENV_PYTHON) -m pytest $(TOGETHER)

test-quick: $(INSTALLED)
	$(VENV_PYTHON) -m pytest $(TOGETHER) -m "not slow"

# ruff takes the template's own configuration for the template's files, so what is different here is
# said here: no cache in the template, not the one Python file with Jinja in it, not N999, which is
# about the names of its folders, and not RUF200, about the one requirement with Jinja in it.
RUFF := --cache-dir .ruff_cache --extend-exclude '*cookiecutter.project_slug*/tests/conftest.py'
lint: $(INSTALLED)
	$(VENV_PYTHON) -m ruff check $(RUFF) --ignore N999,RUF200
	$(VENV_PYTHON) -m ruff format --check $(RUFF)
	$(VENV_PYTHON) -m mypy

clean:
	rm -rf .venv .demo .hypothesis
	find . \( -name __pycache__ -o -name ".*_cache" \) -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "$(PYTHON) is not Python 3.11 or newer: name one that is, as in make PYTHON=/path/to/python3.13 demo." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) has no venv module: install it (on Debian and Ubuntu it is the package python3-venv)." >&2; exit 1; }
	@echo "Installing the template's tools into .venv ..."
	@"$(PYTHON)" -m venv --clear .venv
	@$(VENV_PYTHON) -m pip install --quiet --upgrade pip
	@$(VENV_PYTHON) -m pip install --quiet --group dev
	@touch $(INSTALLED)
