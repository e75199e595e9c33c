# Each target works alone on a fresh machine with python3 (3.10 or newer) and git; a C++ compiler makes the ops fast.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODEL ?= fcos
RUN ?= output/quickstart$(if $(filter-out fcos,$(MODEL)),_$(MODEL))
CONFIG := configs/quick/$(MODEL)_digits.yaml

.PHONY: help setup test lint quickstart benchmark tiny-models clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# torch goes in first: the ops are compiled against it while the package is installed
$(VENV)/.installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip setuptools
	$(BIN)/python -m pip install "torch>=2.11" torchvision
	$(BIN)/python -m pip install -e ".[dev,quickstart]"
	@touch $@

setup: $(VENV)/.installed  ## make .venv, install the package and its tools, build the ops
	@$(BIN)/python -m maskrcnn_benchmark.utils.build_ops --if-changed || echo "Going on without them."

test: setup  ## run the tests and print the slowest (about six minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20

lint: setup  ## check the style
	$(BIN)/python -m ruff check .

quickstart: setup  ## compose the digits, train on them (MODEL=fcos, mask_rcnn, centermask or deeplabv3), test, draw what is found
	$(BIN)/python tools/make_digits.py --output datasets/digits
	$(BIN)/python tools/train_net.py --config-file $(CONFIG) OUTPUT_DIR $(RUN)
	$(BIN)/python tools/draw_predictions.py --config-file $(CONFIG) --output $(RUN)/predictions.png OUTPUT_DIR $(RUN)
	@sed -e 's#CONFIG#$(CONFIG)#; s#RUN#$(RUN)#' docs/after_quickstart.txt

benchmark: setup  ## time the ops against torchvision's, and a few models (some minutes)
	$(BIN)/python benchmarks/ops_cpu.py --repeats 5
	$(BIN)/python tools/benchmark.py --repeats 5 --plot output/benchmark.png --json output/benchmark.json --config-file \
		configs/vovnet/v2/faster_rcnn_Mv2_FPNLite_3x.yaml configs/vovnet/fcos_V_39_FPN_1x.yaml \
		configs/vovnet/e2e_faster_rcnn_V_39_FPN_2x.yaml configs/e2e_faster_rcnn_R_50_FPN_2x.yaml

tiny-models: setup  ## train the two models that come with the package, and write their files and the sample image
	$(BIN)/python tools/make_digits.py --output datasets/digits
	for model in fcos mask_rcnn; do \
		$(BIN)/python tools/train_net.py --config-file configs/quick/$${model}_digits_tiny.yaml && \
		$(BIN)/python tools/ship_weights.py output/digits_$$model/model_final.pth --name digits_$$model || exit 1; \
	done
	$(BIN)/python tools/make_digits.py --scene maskrcnn_benchmark/data/sample_image/digits.jpg --size 480 --seed 9

clean:  ## remove .venv and what was built
	rm -rf $(VENV) build *.egg-info maskrcnn_benchmark/*.so maskrcnn_benchmark/_build*
