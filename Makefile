# Needs Python (3.11, 3.12 or 3.13), pip and make. Everything is installed into .venv/ and .uv/ in this folder.
# Another Python: make demo PYTHON=/path/to/python3.12

.DEFAULT_GOAL := help
.PHONY: help demo test check bench test-deep clean

ifdef PYTHON
export PYTHON
endif
IN_VENV := .venv/bin
LOCKED := pyproject.toml uv.lock .ci/bootstrap

help:
	@echo "make demo        photographs of three models to three verified LoRA versions (no account needed)"
	@echo "make demo EXIT=1 the same, and end after the table; exit code 0 only if all three are registered"
	@echo "make test        the tests"
	@echo "make test-deep   longer proofs"
	@echo "make check       format, lint, types"
	@echo "make bench       the budgets, measured"
	@echo "make clean       remove what make installed and cached (never .lora/, where your data is)"

demo: .venv/.installed-demo
	@$(IN_VENV)/lora-pipeline demo $(if $(filter-out 0,$(EXIT)),--exit)

test: .venv/.installed-dev
	$(IN_VENV)/python -m pytest -n 2 --dist worksteal -m "not deep" $(ARGS)

# pytest answers 5 where no test is marked.
test-deep: .venv/.installed-dev
	$(IN_VENV)/python -m pytest -n 2 --dist worksteal -m deep $(ARGS) || [ $$? -eq 5 ]

check: .venv/.installed-dev
	$(IN_VENV)/ruff format --check .
	$(IN_VENV)/ruff check .
	$(IN_VENV)/mypy

bench: .venv/.installed-dev
	$(IN_VENV)/python -m lora_pipeline_tests.bench $(ARGS)

clean:
	rm -rf .venv .uv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find lora_pipeline lora_pipeline_tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed-demo: $(LOCKED)
	@.ci/bootstrap demo

.venv/.installed-dev: $(LOCKED)
	@.ci/bootstrap dev
