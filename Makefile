# make demo   install into .venv, quantize a real model three ways, compare, generate text
# make gpusim     build the module in which a simulator runs the CUDA kernels (needs nvcc, no GPU)
# make ptx        write the kernels' PTX, their launches and expected results into build/launches, for other executors
# make sanitize   build the extension with AddressSanitizer and UBSan beside .venv and run the kernel tests on that
# make test   install into .venv, check format, lint and types, run every test that this machine can run

PYTHON ?= python3
VENV ?= .venv
# The version that everything is tested with; any torch >= 2.6 that is already in the environment serves as well.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py CMakeLists.txt $(shell find csrc requant_kernels python -type f -not -name '*.pyc' -not -name '*.so')

MAKEFLAGS += --no-print-directory

.PHONY: demo test gpusim simulator simulator-and-kernels ptx all-architectures sanitize lint install benchmark clean

demo: $(VENV)/installed
	$(BIN)/requant demo

test: $(VENV)/installed lint simulator-and-kernels
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 $(PYTEST_OPTIONS)

# The simulator of GPU kernels and, where there is nvcc, the CUDA kernels for two architectures in it.
NVCC := $(firstword $(wildcard $(addsuffix /bin/nvcc,$(CUDA_HOME))) $(shell command -v nvcc))
gpusim: CUDA_ARCHS := 80;90
gpusim: CUDA_MODULES := _cuda _cuda_gpusim
simulator: CUDA_ARCHS :=
gpusim simulator: $(VENV)/installed
	$(BIN)/cmake -S . -B build/gpusim -G Ninja -DCMAKE_BUILD_TYPE=Release -DREQUANT_GPUSIM=ON \
		-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(abspath build/gpusim) '-DREQUANT_CUDA_ARCHS=$(CUDA_ARCHS)' \
		-DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python \
		-Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build build/gpusim --target _gpusim $(CUDA_MODULES)

ifeq ($(NVCC),)
simulator-and-kernels: simulator
	rm -f build/gpusim/_cuda*.so
	@echo "*** No nvcc: the CUDA kernels are neither compiled nor run in the simulator; their tests are left out. ***"
else
simulator-and-kernels: gpusim
endif

ptx: gpusim
	PYTHONPATH=tests/gpusim:tests/helpers $(BIN)/python tests/gpusim/write_launches.py build/launches

# Every architecture that a wheel for all GPUs has.
all-architectures: $(VENV)/installed
	$(BIN)/cmake -S . -B build/cuda -G Ninja -DCMAKE_BUILD_TYPE=Release \
		"-DREQUANT_CUDA_ARCHS=$$($(BIN)/python -c 'import setup; print(setup.ALL_CUDA_ARCHITECTURES)')" \
		-DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python \
		-Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build build/cuda --target _cuda

# A second copy of the package, which goes before the installed one; a finding ends the run.
SANITIZED := build/sanitized
sanitize: $(VENV)/installed
	rm -rf $(SANITIZED)
	REQUANT_SANITIZE=address,undefined $(BIN)/pip install --quiet --no-deps --target $(SANITIZED) .
	LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	PYTHONPATH=$(SANITIZED) OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not gpusim and not triton" $(SANITIZED_TESTS)

# What reaches the extension without other native libraries in between.
SANITIZED_TESTS := tests/backends tests/test_embedding.py

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc tests/gpusim -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

benchmark: $(VENV)/installed
	$(BIN)/pytest benchmarks/linear_cpu.py --benchmark-only

install: $(VENV)/installed

# A stamp file: install again only after a source has changed.
$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet '.[test,lint,demo]'
	touch $@

clean:
	rm -rf $(VENV) build python/*.egg-info *.egg-info
