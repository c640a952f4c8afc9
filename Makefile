.DEFAULT_GOAL := help
.PHONY: help prepare demo test test-unit test-integration test-airflow test-airflow-spark test-spark test-system test-faults test-browser bench lint format schemas dashboards reference docs docs-links locks

ENVS  := $(or $(FLEAD_ENVS),$(if $(FLEAD_HOME),$(FLEAD_HOME)/envs,.flead/envs))
TOOLS := $(ENVS)/tools/bin
PYTEST = $(1)/bin/python -m pytest
SITE  := $(or $(FLEAD_HOME),.flead)/docs
SPHINX = $(TOOLS)/sphinx-build --quiet -c docs -d $(SITE)-state
AIRFLOW_TESTS := tests/integration/airflow
AIRFLOW_SPARK_TESTS := $(addprefix $(AIRFLOW_TESTS)/,test_spark.py test_stream_deployment.py)
SPARK_TESTS := $(addprefix tests/integration/,spark test_batch_analysis.py test_model_evaluation.py)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

prepare: ## install the environments and the jars (a second time does nothing)
	@bin/flead prepare all

demo: ## run the main job on a simulated fleet, with Spark's analyses, until Ctrl-C
	@bin/flead demo --with-analysis

test: export FLEAD_QUICK := 1
test: prepare ## run the tests: all but lengthy ones, of the kills only that of everything at once
	@# Tests against servers wait more than they work: suites go side by side, that of the whole
	@# stack, which needs most of a machine, after the others. None hides the failure of another.
	@status=0; \
	run() { $(MAKE) --no-print-directory --output-sync=target --keep-going "$$@" || status=$$?; }; \
	run --jobs 3 test-airflow test-integration test-spark test-airflow-spark test-browser \
		test-faults test-unit; \
	run test-system; \
	exit $$status

test-unit: prepare ## run the tests that need no server
	$(call PYTEST,$(ENVS)/tools) tests/unit

test-integration: prepare ## run the tests against real servers, each started by its test
	$(call PYTEST,$(ENVS)/tools) tests/integration --ignore $(AIRFLOW_TESTS) \
		$(SPARK_TESTS:%=--ignore=%)

test-airflow: prepare ## run the tests in Airflow's environment, but those that start Spark
	$(call PYTEST,$(ENVS)/airflow) $(AIRFLOW_TESTS) $(AIRFLOW_SPARK_TESTS:%=--ignore=%) \
		$(if $(FLEAD_QUICK),-m "not lengthy")

test-airflow-spark: prepare ## run the tests in Airflow's environment that start Spark
	$(call PYTEST,$(ENVS)/airflow) $(AIRFLOW_SPARK_TESTS)

test-spark: prepare ## run the tests of the analyses on Spark
	$(call PYTEST,$(ENVS)/tools) $(SPARK_TESTS)

test-system: prepare ## run the demo on a small fleet through the whole stack, lengthy tests too
	$(call PYTEST,$(ENVS)/tools) tests/system $(if $(FLEAD_QUICK),-m "not lengthy")

test-faults: prepare ## kill servers under load and account for every row
	$(call PYTEST,$(ENVS)/tools) tests/faults

test-browser: prepare ## look at the fleet pages with a real browser, and at those of `make demo`
	$(call PYTEST,$(ENVS)/tools) tests/browser $(if $(FLEAD_QUICK),-m "not lengthy")

bench: prepare ## measure the training job and draw docs/images/performance.svg (20 minutes)
	$(TOOLS)/python -m benchmarks.curves

lint: prepare ## check style, types, direction of imports, SQL and images
	$(TOOLS)/ruff check
	$(TOOLS)/ruff format --check
	$(TOOLS)/mypy
	$(TOOLS)/lint-imports
	$(TOOLS)/sqlfluff lint sql
	$(TOOLS)/hadolint deploy/images/Dockerfile

format: prepare ## rewrite the code in the house's format
	$(TOOLS)/ruff check --fix
	$(TOOLS)/ruff format

schemas: prepare ## write docs/schemas from the contracts
	$(TOOLS)/python -m flead.contracts.jsonschema docs/schemas

dashboards: prepare ## write Grafana's dashboards and alert rules from the code
	$(TOOLS)/python -m flead.dashboards grafana

reference: prepare ## write docs/reference from the code, the DAGs and a migrated database
	$(TOOLS)/python -m reference docs/reference

docs: prepare ## build the documentation into .flead/docs; a warning is an error
	$(SPHINX) -b html --fail-on-warning --keep-going . $(SITE)
	@echo "open $(SITE)/index.html"

docs-links: prepare ## ask every address outside that the documentation links to (needs the internet)
	$(SPHINX) -b linkcheck . $(SITE)-links

locks: prepare ## resolve requirements/*.in into hashed locks
	@for in in requirements/*.in; do \
		echo "$$in"; \
		$(ENVS)/bootstrap/bin/uv pip compile --universal --python-version 3.11 --generate-hashes \
			--no-header --no-annotate --quiet "$$in" -o "$${in%.in}.lock" || exit 1; \
	done
