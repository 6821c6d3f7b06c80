PYTHON ?= python3
STYLE ?= to_thread
BIN := .venv/bin
INSTALLED := .venv/installed
TEMPLATE := {{cookiecutter.project_slug}}
# The slug that the default answers give.
SLUG := chat-service
DEMO := .demo/$(STYLE)
BAKED := $(DEMO)/baked
# Folders too: their times tell when a file is gone.
SOURCES := cookiecutter.json $(shell find hooks '$(TEMPLATE)' -name '__pycache__' -prune -o -print)

# One word, and no foreign one.
ifneq ($(words $(STYLE))$(filter-out to_thread sync async,$(STYLE)),1)
$(error STYLE=$(STYLE) is no handler style: choose to_thread, sync or async)
endif

.PHONY: help demo bench test lint clean

help:
	@echo "make demo    make a project with the default answers and show it at work: needs no key"
	@echo "             (STYLE=to_thread, sync or async)"
	@echo "make bench   measure the styles against what people write by hand (half an hour)"
	@echo "             (ARGS=--quick only tries it; ARGS=--help has the options)"
	@echo "make test    test the template and the projects that it makes (some minutes)"
	@echo "make lint    check style, format and types of the hooks and tests, and the template's style"
	@echo "make clean   remove what the others made"

demo: $(BAKED)
	@$(MAKE) --no-print-directory -C $(DEMO)/$(SLUG) demo PYTHON="$(CURDIR)/$(BIN)/python"
	@echo
	@echo "The same by hand, beside this folder:"
	@echo "  $(BIN)/cookiecutter . --no-input --output-dir .. handler_style=$(STYLE)"
	@echo "  cd ../$(SLUG) && make demo"

# Everything is made anew but the project's environment, which takes long.
$(BAKED): $(INSTALLED) $(SOURCES)
	@echo "Making a project with the default answers in $(DEMO)/$(SLUG) ..."
	@mkdir -p $(DEMO)/$(SLUG)
	@find $(DEMO)/$(SLUG) -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
	@$(BIN)/cookiecutter . --no-input --default-config --overwrite-if-exists \
		--output-dir $(DEMO) handler_style=$(STYLE) >$(DEMO)/log || { cat $(DEMO)/log >&2; exit 1; }
	@touch $(BAKED)

bench: $(INSTALLED)
	@$(BIN)/python -m benchmarks $(ARGS)

test: $(INSTALLED)
	$(BIN)/pytest

# ruff takes the template's own configuration for the template's files, so what is different here is
# said here: no cache in the template, not the one Python file with Jinja in it, not N999, which is
# about the names of its folders, and not RUF200, about the one requirement with Jinja in it.
RUFF := --cache-dir .ruff_cache --extend-exclude '*cookiecutter.project_slug*/tests/conftest.py'
lint: $(INSTALLED)
	$(BIN)/ruff check $(RUFF) --ignore N999,RUF200
	$(BIN)/ruff format --check $(RUFF)
	$(BIN)/mypy

clean:
	rm -rf .venv .demo
	find . \( -name __pycache__ -o -name ".*_cache" \) -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "$(PYTHON) is not Python 3.11 or newer: name one that is, as in make PYTHON=/path/to/python3.13 demo." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) has no venv module: install it (on Debian and Ubuntu it is the package python3-venv)." >&2; exit 1; }
	@echo "Installing the template's tools into .venv ..."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $(INSTALLED)
