"""What an embedding is: preprocessing, network, training, export and the runtimes that serve it."""

import sys

# OpenVINO and NNCF report every import and conversion to Google Analytics, by default and without asking, through a
# package of this name. Without it they report nothing, so it is made missing in every process that imports `model`.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is how a module is made missing
