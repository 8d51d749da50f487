# The image that serves, indexes and runs the demo on a CPU, without torch:
#   docker build -f docker/cpu.Dockerfile -t carsearch:cpu .
# The base may be any Debian with Python 3.11 or newer and its venv module: nothing below asks where it lies.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# What to ask pip for. A stage of its own: another line of pyproject.toml then does not install everything again.
FROM ${PYTHON_IMAGE} AS wanted
ARG EXTRAS=cpu,otel
WORKDIR /build
COPY pyproject.toml ./
RUN python3 -c 'import sys, tomllib; \
    project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
    extras = [project["optional-dependencies"][name] for name in sys.argv[1].split(",")]; \
    print(*project["dependencies"], *sum(extras, []), sep="\n")' "$EXTRAS" > requirements.txt

# pip and setuptools lie beside the environment that is shipped, never in it. Only wheels: there is no compiler.
FROM ${PYTHON_IMAGE} AS tools
WORKDIR /build
COPY constraints.txt ./
RUN python3 -m venv /opt/pip \
 && /opt/pip/bin/pip install --no-cache-dir --only-binary :all: -c constraints.txt setuptools \
 && python3 -m venv --without-pip /opt/carsearch

FROM tools AS dependencies
COPY --from=wanted /build/requirements.txt ./
RUN /opt/pip/bin/pip --python /opt/carsearch/bin/python install \
      --no-cache-dir --no-compile --only-binary :all: -c constraints.txt -r requirements.txt
# OpenVINO's wheel has plugins for Intel's GPUs and NPUs, the GPU's tuning table, and readers of other frameworks' models;
# a CPU and OpenVINO's own format need none of them: 80 MB. A name that a later release lacks is no error.
# Bytecode is written now, because the root file system is read-only later; whatever happens to file times, it holds.
RUN find /opt/carsearch -path '*/openvino/libs/*' \
      \( -name 'libopenvino_intel_gpu_plugin*' -o -name 'libopenvino_intel_npu_plugin*' -o -name cache.json \
      -o -name 'libopenvino_*_frontend*' ! -name 'libopenvino_ir_frontend*' \) -delete \
 && /opt/carsearch/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/carsearch/lib

# An environment at the same place with the code alone, which is laid over the dependencies as a thin layer.
FROM tools AS project
COPY pyproject.toml README.md LICENSE ./
COPY carsearch carsearch
COPY model model
COPY indexer indexer
COPY service service
RUN PYTHONWARNINGS=ignore /opt/pip/bin/pip wheel -q --no-deps --no-build-isolation -w dist . \
 && /opt/pip/bin/pip --python /opt/carsearch/bin/python install --no-deps --no-compile dist/*.whl \
 && /opt/carsearch/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/carsearch/lib

FROM ${PYTHON_IMAGE}
# Nothing is installed in a running container, so the base's own pip goes too, where it has one; and no program runs as
# somebody else.
RUN if python3 -m pip --version >/dev/null 2>&1; then python3 -m pip uninstall -q -y pip setuptools wheel; fi \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && groupadd --gid 10001 carsearch \
 && useradd --no-log-init --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin carsearch \
 && install -d -o carsearch -g carsearch /index /delta /state /cache /spool /models \
 && install -d /gallery
COPY --from=dependencies /opt/carsearch /opt/carsearch
COPY --from=project /opt/carsearch /opt/carsearch
ENV PATH=/opt/carsearch/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1
# Proves that the environment is whole, and leaves the bytecode of the standard library, which the public base lacks.
RUN ["python", "-c", "import platform, service.cli.main, service.http.server, service.demo.command, indexer.build, faiss; __import__('onnxruntime' if platform.machine() == 'aarch64' else 'openvino')"]
ENV HOME=/tmp \
    XDG_CACHE_HOME=/tmp \
    CARSEARCH_INDEX_DIR=/index \
    CARSEARCH_STATE_DIR=/state \
    CARSEARCH_CACHE_DIR=/cache \
    CARSEARCH_SPOOL_DIR=/spool \
    CARSEARCH_LOG_FORMAT=json
WORKDIR /
USER 10001:10001
EXPOSE 8000
# Only whether the process answers; whether it can search is /readyz, which a load balancer asks. No proxy of the
# environment is asked, and no package is loaded.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-S", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["carsearch"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
# Last, because they differ in every build.
ARG PYTHON_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="carsearch" \
      org.opencontainers.image.description="A photo of a car goes in; the nearest car of a gallery and its class come out. CPU." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
