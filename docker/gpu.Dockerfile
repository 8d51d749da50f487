# The images for NVIDIA GPUs. The second is the first and what training needs beside it:
#   docker build -f docker/gpu.Dockerfile --target serve -t carsearch:gpu .
#   docker build -f docker/gpu.Dockerfile --target train -t carsearch:train .
#
# One CUDA runtime. The newest torch is built against CUDA 13 and brings it as wheels; of FAISS's two builds with GPUs,
# faiss-gpu wants CUDA 12's wheels and faiss-gpu-cuvs CUDA 13's, those that torch has brought already. Two runtimes of
# different versions in one process have a state each, twice the memory, and symbols of the same names. So: faiss-gpu-cuvs.
# The build ends with an error when a process that imports all three has more than one libcudart. constraints.txt says why
# cuVS stays at 26.06.
#
# The base needs no CUDA: the wheels bring everything but the driver, which NVIDIA's container toolkit lends to a container.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# What to ask pip for. A stage of its own: another line of pyproject.toml then does not install everything again.
FROM ${PYTHON_IMAGE} AS wanted
WORKDIR /build
COPY pyproject.toml ./
RUN for extras in gpu,otel gpu,train,otel; do python3 -c 'import sys, tomllib; \
    project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
    extras = [project["optional-dependencies"][name] for name in sys.argv[1].split(",")]; \
    print(*project["dependencies"], *sum(extras, []), sep="\n")' "$extras" > "$extras.txt"; done

# pip and setuptools lie beside the environment that is shipped, never in it. Only wheels: there is no compiler.
FROM ${PYTHON_IMAGE} AS tools
WORKDIR /build
COPY constraints.txt ./
RUN python3 -m venv /opt/pip \
 && /opt/pip/bin/pip install --no-cache-dir --only-binary :all: -c constraints.txt setuptools \
 && python3 -m venv --without-pip /opt/carsearch

FROM tools AS dependencies
COPY --from=wanted /build/gpu,otel.txt ./
RUN /opt/pip/bin/pip --python /opt/carsearch/bin/python install \
      --no-cache-dir --no-compile --only-binary :all: -c constraints.txt -r gpu,otel.txt
# torchvision's wheel has a copy of torch's own libcudart, the same to the byte; as a link to that it is loaded once.
# Bytecode is written now, because the root file system is read-only later; whatever happens to file times, it holds. (torch's own tests are partly
# written for a newer Python.)
RUN cd /opt/carsearch/lib/python3*/site-packages \
 && for copy in torchvision.libs/libcudart.*; do \
      if cmp -s "$copy" nvidia/cu13/lib/libcudart.so.13; then ln -sf ../nvidia/cu13/lib/libcudart.so.13 "$copy"; fi; done \
 && /opt/carsearch/bin/python -c 'import faiss, torch, torchvision; \
    loaded = {line.split()[-1] for line in open("/proc/self/maps") if "libcudart" in line}; \
    print("torch", torch.__version__, "FAISS", faiss.__version__, *loaded); \
    raise SystemExit(len(loaded) != 1)' \
 && /opt/carsearch/bin/python -m compileall -q -x /torch/testing/ --invalidation-mode unchecked-hash /opt/carsearch/lib

# What training needs and serving has not, beside it: versions are fixed, so nothing that is there is replaced.
FROM dependencies AS training
COPY --from=wanted /build/gpu,train,otel.txt ./
RUN /opt/pip/bin/pip --python /opt/carsearch/bin/python install --prefix /opt/training \
      --no-cache-dir --no-compile --only-binary :all: -c constraints.txt -r gpu,train,otel.txt \
 && /opt/carsearch/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/training/lib

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

FROM ${PYTHON_IMAGE} AS environment
# Nothing is installed in a running container, so the base's own pip goes too, where it has one; and no program runs as
# somebody else.
RUN if python3 -m pip --version >/dev/null 2>&1; then python3 -m pip uninstall -q -y pip setuptools wheel; fi \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && groupadd --gid 10001 carsearch \
 && useradd --no-log-init --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin carsearch \
 && install -d -o carsearch -g carsearch /index /delta /state /cache /spool /models \
 && install -d /gallery
COPY --from=dependencies /opt/carsearch /opt/carsearch
# The toolkit's: which GPUs are lent, which parts of the driver, and that one too old for CUDA 13 is refused in words.
ENV PATH=/opt/carsearch/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA=cuda>=13.0 \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp \
    CARSEARCH_INDEX_DIR=/index \
    CARSEARCH_STATE_DIR=/state \
    CARSEARCH_CACHE_DIR=/cache \
    CARSEARCH_SPOOL_DIR=/spool \
    CARSEARCH_LOG_FORMAT=json
WORKDIR /

# The trainer. Both images share the layers of the environment, which are the large ones.
FROM environment AS train
COPY --from=training /opt/training /opt/carsearch
COPY --from=project /opt/carsearch /opt/carsearch
RUN ["python", "-B", "-c", "import service.cli.main, model.training.trainer, model.export.openvino, indexer.build, faiss, nncf"]
USER 10001:10001
# A job, not a server: whether it is done is its exit status.
HEALTHCHECK NONE
ENTRYPOINT ["carsearch"]
CMD ["train", "--help"]
# Last, because they differ in every build.
ARG PYTHON_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="carsearch-train" \
      org.opencontainers.image.description="Trains and exports the networks of carsearch. NVIDIA GPU." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM environment AS serve
COPY --from=project /opt/carsearch /opt/carsearch
# Proves that the environment is whole, and leaves the bytecode of the standard library, which the public base lacks.
RUN ["python", "-c", "import service.cli.main, service.http.server, service.demo.command, indexer.build, faiss, torch, torchvision"]
USER 10001:10001
EXPOSE 8000
# Only whether the process answers; whether it can search is /readyz, which a load balancer asks. No proxy of the
# environment is asked, and no package is loaded.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-S", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["carsearch"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
# Last, because they differ in every build.
ARG PYTHON_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="carsearch" \
      org.opencontainers.image.description="A photo of a car goes in; the nearest car of a gallery and its class come out. NVIDIA GPU." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
