"""What an embedding is: preprocessing, network, training, export and the runtimes that serve it."""

import sys

# OpenVINO and NNCF report every import and conversion to Google Analytics, by default and without asking, through a
# package of this name. Where it is missing they report nothing, and so it is missing in every process of ours.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is how a module is made missing
