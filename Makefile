# What a developer does with golibx. Everything needs only python3 (3.11 or newer) and make: the rest,
# the Zig compiler included, comes from PyPI into .venv. What is built goes to build/.
#
#   PYTHON=python3.13      the interpreter for .venv, and the first that the tests run on
#   OPTIMIZE=debug         the native library with assertions: debug or safe; fast is the default
#   ARGS="-k chan -x"      more arguments for pytest, golibx run, bench/run.py, tests/soak.py or the storms

PYTHON ?= python3
OPTIMIZE ?= fast
ARGS ?=

export GOLIBX_ZIG_OPTIMIZE := $(OPTIMIZE)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
BIN := $(VENV)/bin
ZIG := $(BIN)/python -m ziglang
ZIG_BUILD := $(ZIG) build --cache-dir build/zig-cache
DIST := build/dist/$(OPTIMIZE)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@echo "make TARGET [PYTHON=python3.12] [OPTIMIZE=debug] [ARGS=...]"
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
		printf '  %-10s %s\n' "$$target" "$$text"; done

.PHONY: run
run: $(VENV)/ready build/library-$(OPTIMIZE) ## Run the tour on the runtime: config/golib.toml
	@$(BIN)/golibx run --config config/golib.toml $(ARGS)

.PHONY: test
test: check-zig build/checked $(DIST)/built ## Test the Zig core and its interleavings, then the installed wheel on every Python at hand
	@$(PYTHON) tools/run_tests.py $(DIST) $(ARGS)

.PHONY: check-zig
check-zig: build/tested-zig ## Run the unit tests of the Zig core

.PHONY: check
check: $(VENV)/ready ## Explore the interleavings of the concurrent parts: zsrc/check; CHECK="-Dcheck-depth=4"
	@$(ZIG_BUILD) check $(CHECK)

.PHONY: lint
lint: $(VENV)/lint-ready build/library-$(OPTIMIZE) ## Check style and types: ruff, mypy, stubtest, zig fmt
	@failed=0; for check in "$(BIN)/ruff check ." "$(BIN)/ruff format --check ." "$(BIN)/mypy" \
			"$(BIN)/stubtest golibx._core" "$(ZIG) fmt --check build.zig zsrc"; do \
		echo "$$check"; $$check || failed=1; done; exit $$failed

.PHONY: docs
docs: $(VENV)/docs-ready build/library-$(OPTIMIZE) ## Build the documentation site, build/site/index.html; links are checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "open build/site/index.html"

# What they show is measured: on a machine that does nothing else.
PICTURED := yield2 pingpong spawn select4
.PHONY: pictures
pictures: build/bench-ready build/library-$(OPTIMIZE) ## Draw the README's pictures: a recording of the tour, and a chart of benchmarks
	@$(BIN)/python tools/record_tour.py docs/assets/tour.svg $(BIN)/golibx run --config config/golib.toml
	@$(BIN)/python bench/run.py $(PICTURED:%=--only %) --json build/bench.json \
		$(addprefix --runtime ,asyncio gevent go-p1 golibx) $(ARGS)
	@$(BIN)/python bench/chart.py build/bench.json docs/assets/bench.svg

.PHONY: bench
bench: build/bench-ready build/library-$(OPTIMIZE) ## Compare with gevent, asyncio and Go: bench/README.md
	@$(BIN)/python bench/run.py $(ARGS)

.PHONY: bench-real
bench-real: $(VENV)/ready build/bench-real-ready build/library-$(OPTIMIZE) ## Compare an ordinary program of many threads: on golibx, threads, gevent; ARGS="--install" for the servers
	@$(BIN)/python bench/real/compare.py $(ARGS)

.PHONY: test-matrix
test-matrix: $(DIST)/built ## Packages with C code in a hundred goroutines each, and a notebook, on every Python at hand; ARGS as for test
	@GOLIBX_EXTRAS=test,matrix $(PYTHON) tools/run_tests.py $(DIST) tests/test_matrix.py tests/test_greenlets.py \
		tests/test_notebook.py $(ARGS)

# On these Pythons, unless ARGS names others.
PROGRAMS_ON := --on 3.11 --on 3.13
.PHONY: test-programs
test-programs: $(DIST)/built ## Thirty packages' ordinary programs and servers, unchanged, against real servers: on 3.11 and 3.13; ARGS as for test
	@GOLIBX_REQUIREMENTS=tests/programs/requirements.txt $(PYTHON) tools/run_tests.py $(DIST) --jobs 1 \
		$(if $(findstring --on,$(ARGS)),,$(PROGRAMS_ON)) tests/programs/check_programs.py $(ARGS)

.PHONY: soak
soak: $(VENV)/lint-ready build/library-$(OPTIMIZE) ## Forks, ends of runs, servers treated badly, floods of events, then everything at once for ten minutes: tests/soak.py
	@$(BIN)/python tests/forks.py 10000 1200
	@$(BIN)/python tests/endings.py 5000 600
	@$(BIN)/python tests/patch_soak.py 60
	@GOLIBX_HARDSHIP=50 $(BIN)/python -m pytest tests/test_hardship.py
	@$(BIN)/python tests/flood.py 30
	@$(BIN)/python tests/soak.py $(ARGS)
	@$(ZIG_BUILD) check -Dcheck-seconds=60

.PHONY: stress
stress: $(VENV)/ready build/library-$(OPTIMIZE) ## Run storms on the native lane; ARGS=--times=50 is the long form
	@$(BIN)/python tests/native_stress/run.py $(ARGS)

# Preemption is left out: ThreadSanitizer holds signals back, and a handler must not switch away then.
.PHONY: stress-tsan
stress-tsan: $(VENV)/ready ## The same with ThreadSanitizer, without preemption
	$(ZIG_BUILD) stress -Doptimize=safe -Dsanitize-thread --prefix build/tsan
	@TSAN_OPTIONS=suppressions=tests/native_stress/tsan.supp $(BIN)/python \
		tests/native_stress/run.py --program build/tsan/bin/stress --ways off $(ARGS)

.PHONY: test-cpython
test-cpython: $(DIST)/built ## Compare CPython's own tests on golibx with plain Python's; ARGS="--on 3.13 test_signal"
	@$(PYTHON) tools/test_cpython.py $(DIST) $(ARGS)

.PHONY: test-stdlib
test-stdlib: $(DIST)/built ## Compare CPython's own tests of the modules that golibx patches; ARGS="--on 3.13 --unpatched test_ssl"
	@$(PYTHON) tools/test_cpython.py $(DIST) --stdlib $(ARGS)

.PHONY: pythons
pythons: ## Install the Pythons to test on that this machine lacks (Debian, as root): tools/install_pythons.sh
	@tools/install_pythons.sh $(ARGS)

.PHONY: test-aarch64
test-aarch64: $(VENV)/ready ## Test the native lane as an arm64 program, under qemu: tools/test_aarch64.sh
	@tools/test_aarch64.sh "$(ZIG)"

.PHONY: build-all
build-all: $(VENV)/ready ## Compile the library for all targets, into zig-out/all
	$(ZIG_BUILD) all -Doptimize=$(OPTIMIZE) --summary all

.PHONY: wheels
wheels: $(VENV)/wheels-ready ## Build the wheels for all platforms and check them, into build/wheels; ARGS="--only musl --twice"
	@$(BIN)/python tools/wheels.py $(ARGS)

.PHONY: prebuilt
prebuilt: $(VENV)/wheels-ready ## The same, and the bare libraries with golibx.h, checksums and SBOMs, into build/prebuilt
	@$(BIN)/python tools/wheels.py --prebuilt $(ARGS)

.PHONY: clean
clean: ## Remove everything that make has made
	rm -rf build dist zig-out .zig-cache $(VENV) golibx/_core*.so golibx/_core*.pyd
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The lists of sources, as files that are written only when a source has come or gone: so that also
# the removal of one is a change.
ZIG_SOURCES := build.zig golibx/schema.py $(shell find zsrc -type f)
WHEEL_SOURCES := $(ZIG_SOURCES) pyproject.toml hatch_build.py README.md LICENSE \
	$(shell find golibx -name '*.py' -o -name '*.pyi' -o -name py.typed)
SDIST_SOURCES := $(WHEEL_SOURCES) $(shell find tests examples -name '*.py' -o -name '*.[ch]')

build/%-sources: FORCE
	@mkdir -p build
	@test "$$(cat $@ 2>/dev/null)" = "$(sort $($*_SOURCES))" || echo "$(sort $($*_SOURCES))" >$@

.PHONY: FORCE
FORCE:

# Says what a step is, and how long it took.
define timed
@echo "--- $(1)"
@began=$$(date +%s); { $(2); } && echo "    $$(($$(date +%s) - began)) s"
endef

# The virtual environment: golibx as an editable install, and what builds it. The requirements of the
# build are installed first (for an editable one, hatchling wants editables too), so that pip does
# not fetch the Zig compiler a second time for a build environment of its own.
$(VENV)/ready: pyproject.toml hatch_build.py golibx/version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "golibx needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(call timed,making the environment $(VENV),test -x $(BIN)/python || $(PYTHON) -m venv $(VENV))
	$(call timed,installing the Zig compiler$(,) of some 90 MB,$(BIN)/python -m pip install --quiet editables \
		$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml"$(,) "rb"))["build-system"]["requires"])'))
	$(call timed,compiling the native library ($(OPTIMIZE))$(,) half a minute$(,) and installing golibx,\
		$(BIN)/python -m pip install --quiet --no-build-isolation --editable .)
	@touch $@

, := ,

# What checks golibx besides.
$(VENV)/lint-ready: $(VENV)/ready
	$(call timed,installing what checks style and types,$(BIN)/python -m pip install --quiet \
		--no-build-isolation --editable '.[dev]')
	@touch $@

# What looks into the wheels.
$(VENV)/wheels-ready: $(VENV)/ready
	$(call timed,installing what looks into wheels,$(BIN)/python -m pip install --quiet \
		--no-build-isolation --editable '.[wheels]')
	@touch $@

# What makes the documentation site.
$(VENV)/docs-ready: $(VENV)/ready
	$(call timed,installing what makes the site,$(BIN)/python -m pip install --quiet \
		--no-build-isolation --editable '.[docs]')
	@touch $@

# The library in golibx/, in the mode asked for last.
build/library-$(OPTIMIZE): $(VENV)/ready build/ZIG-sources $(ZIG_SOURCES)
	$(call timed,compiling the native library ($(OPTIMIZE)),$(BIN)/python hatch_build.py)
	@rm -f build/library-*
	@touch $@

build/tested-zig: $(VENV)/ready build/ZIG-sources $(ZIG_SOURCES)
	$(ZIG_BUILD) test -Doptimize=debug --test-timeout 120s --summary all
	@touch $@

build/checked: $(VENV)/ready build/ZIG-sources $(ZIG_SOURCES)
	$(ZIG_BUILD) check
	@touch $@

$(DIST)/built: $(VENV)/ready build/SDIST-sources $(SDIST_SOURCES)
	@echo "--- building the wheel ($(OPTIMIZE)) and the sdist"
	@rm -rf $(DIST)
	@$(BIN)/python -m hatchling build --directory $(DIST)
	@touch $@

build/bench-real-ready: $(VENV)/ready bench/real/requirements.txt
	@$(BIN)/python -m pip install --quiet --requirement bench/real/requirements.txt
	@touch $@

build/bench-ready: $(VENV)/ready bench/requirements.txt
	@$(BIN)/python -m pip install --quiet --requirement bench/requirements.txt
	@touch $@
