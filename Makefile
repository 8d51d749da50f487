# make demo                                 the model and the gallery that ship: index, evaluate, serve
# make train-demo GALLERY=<class folders>   train a small model on your photos, index them, evaluate, serve; installs 6.5 GB
# make test                                 the tests that need neither torch nor minutes; installs 0.5 GB
# make test-all                             these, and then all the others; installs 7.5 GB
# make test-engines                         the tests against a Milvus server, of 0.7 GB on disk, and on a Ray cluster of this machine
# make check                                linters and types; installs 7.5 GB
# make fuzz SECONDS=600                     look for input that does harm: decoder, archive reader, the API; so long for each
# make audit                                ask for known vulnerabilities of the packages of constraints.txt; needs the internet
# make endure                               kills, swaps, overload, damaged uploads, the soak: over an hour: docs/reliability.md
# make soak                                 mixed and hostile traffic for a quarter of an hour: docs/reliability.md
# make bench                                measure the service, 20 minutes on an idle machine: docs/performance.md
# make test-image                           build the CPU image without a container engine and try it (root, on Debian)
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
PORT ?= 8000
SECONDS ?= 600
# Markers of pyproject.toml: tests that have one of them are left to `make test-all`.
MARKED := slow or e2e or deploy or fuzz or soak or torch or engines
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: demo train-demo gallery-named test test-rest test-all test-engines test-milvus test-cluster check bench endure soak fuzz audit test-image clean

demo: $(VENV)/.demo
	exec $(BIN)/carsearch demo --port $(PORT)

train-demo: gallery-named $(VENV)/.train
	$(BIN)/carsearch train --data "$(GALLERY)" --recipe quick --out "$(DEMO)/quick" --restart
	$(BIN)/carsearch export "$(DEMO)/quick"
	$(BIN)/carsearch index "$(GALLERY)" --index "$(DEMO)/index" --model "$(DEMO)/quick"
	$(BIN)/carsearch evaluate --data "$(GALLERY)" --model "$(DEMO)/quick"
	@echo 'Most of these classes were trained on, so this is not yet the benchmark; README.md says how to run that.'
	@echo
	@echo 'The page: http://127.0.0.1:$(PORT)/    A search: curl -F file=@PHOTO.jpg http://127.0.0.1:$(PORT)/search'
	exec $(BIN)/carsearch serve --index "$(DEMO)/index" --port $(PORT)

gallery-named:
	@test -d "$(GALLERY)" || { echo 'Name your photos: make train-demo GALLERY=<one folder a class>'; exit 2; }

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not ($(MARKED))" tests/unit tests/api

test-rest: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "($(MARKED)) and not engines" --require-full-set

test-all: test test-rest

# Two runs, because a Milvus server that gets no processor for seconds gives itself up.
test-engines: test-milvus test-cluster

test-milvus: $(VENV)/.dev $(VENV)/milvus
	$(BIN)/python -m pytest -m engines -k milvus

test-cluster: $(VENV)/.dev
	$(BIN)/python -m pytest -m engines -k "not milvus"

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m bench performance

endure: $(VENV)/.dev
	$(BIN)/python -m tests.soak

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak soak

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.soak.fuzz decode --seconds $(SECONDS)
	$(BIN)/python -m tests.soak.fuzz archive --seconds $(SECONDS)
	$(BIN)/python -m tests.soak.fuzz api --seconds $(SECONDS)

audit: $(VENV)/.dev
	$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

test-image:
	docker/test-image.sh

clean:
	rm -rf "$(VENV)" "$(DEMO)" build *.egg-info

# One environment, made fuller for tests, for those who train, and for developers; a change of what is needed installs again.
$(VENV)/.demo: pyproject.toml constraints.txt
	@echo 'Installing what indexing and serving need into $(VENV): about 0.1 GB to download, 0.5 GB on disk.'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[cpu]"
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt
	@echo 'Installing what indexing, serving and tests need into $(VENV): about 0.1 GB to download, 0.5 GB on disk.'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[cpu,test]"
	@touch $@ $(VENV)/.demo

$(VENV)/.train: pyproject.toml constraints.txt
	@echo 'Installing PyTorch with CUDA and what training needs into $(VENV): about 3.3 GB to download, 6.5 GB on disk.'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[cpu,train]"
	@touch $@ $(VENV)/.demo

$(VENV)/.dev: pyproject.toml constraints.txt
	@echo 'Installing everything for development into $(VENV): PyTorch with CUDA too, about 7.5 GB on disk.'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[cpu,milvus,ray,train,render,otel,bench,test,dev]"
	@touch $@ $(VENV)/.demo $(VENV)/.test $(VENV)/.train

# A Milvus server for tests, in a process of its own: its wheel is the last one that there was.
$(VENV)/milvus:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --disable-pip-version-check -q milvus==2.3.5
