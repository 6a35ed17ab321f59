# One image for every Lambda function, the ECS worker and the SageMaker endpoint, in two flavours:
# --target cpu, and --target gpu with CUDA. docs/how-to/containers.md tells how each is built and run.
# sam build uses Docker's classic builder: no syntax line, no RUN --mount, no COPY --chmod. That builder makes every
# stage above the one it is asked for, so what only gpu needs comes after cpu.

FROM public.ecr.aws/docker/library/python:3.12-slim-bookworm AS base
WORKDIR /app
ENV ORT_DISABLE_TELEMETRY=1 \
    PATH=/opt/venv/bin:$PATH \
    PBR_MODEL_DIR=/opt/models \
    PBR_NUMBA_CACHE=/opt/numba \
    PYTHONUNBUFFERED=1
# Fargate gives a volume the modes that the image has at its place, if that place is a volume in the image too.
VOLUME /tmp
# No USER: sam local builds on this image and needs root for it. The entry point steps down from root.
ENTRYPOINT ["/app/entrypoint.sh"]

# ---- Packages. Their files get one date in whole seconds, which numba's cache compares: a registry keeps no more.
FROM base AS packages
COPY requirements/runtime.lock requirements/
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --require-hashes --no-deps \
        --only-binary :all: -r requirements/runtime.lock \
    && find /opt/venv -exec touch --no-dereference --date=@0 {} + \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

# ---- pymatting, compiled here: at its first import it would take a minute, and need a disk that can be written.
FROM packages AS compiled
COPY core/__init__.py core/
COPY core/matting/__init__.py core/matting/compiled.py core/matting/
RUN python -c "\
from pathlib import Path; \
from core.matting import compiled; \
compiled.bake(Path('$PBR_NUMBA_CACHE'))"

# ---- Weights. Only what finds and checks them is copied, so that a change of other code downloads nothing.
FROM packages AS weights
COPY core/__init__.py core/errors.py core/
COPY core/segmentation/__init__.py core/segmentation/registry.py core/segmentation/
COPY functions/__init__.py functions/
COPY functions/contracts/__init__.py functions/contracts/errors.py functions/contracts/
COPY functions/runtime/__init__.py functions/runtime/cgroup.py functions/runtime/download.py functions/runtime/weights.py \
    functions/runtime/
# The models whose weights the image carries, separated by spaces; "classical" has none, and custom ones are fetched at
# run time, since a build has no access to their bucket.
ARG MODELS=birefnet-general-lite
ARG CUSTOM_MODELS=
# Base URL that they are fetched from; empty for rembg's releases.
ARG MODEL_MIRROR=
RUN mkdir -p "$PBR_MODEL_DIR" \
    && python -c "\
import os; \
from pathlib import Path; \
from core.segmentation import registry; \
from functions.runtime.weights import ModelSource; \
source = ModelSource((Path(os.environ['PBR_MODEL_DIR']),), os.environ['MODEL_MIRROR'] or None, timeout_s=1800); \
elsewhere = {registry.CLASSICAL, *registry.with_custom(os.environ['CUSTOM_MODELS'])} - {*registry.MODELS}; \
[source.path(name) for name in os.environ['MODELS'].split() if name not in elsewhere]"

# ---- The project. Lambda runs it as a user of its own, whatever the modes of the checkout were.
FROM base AS project
COPY entrypoint.sh ./
COPY core core
COPY functions functions
RUN chmod -R a+rX . && chmod a+x entrypoint.sh && python -m compileall -q core functions

# ---- On CPUs
FROM base AS cpu
COPY --from=packages /opt/venv /opt/venv
COPY --from=compiled /opt/numba /opt/numba
COPY --from=weights /opt/models /opt/models
COPY --from=project /app /app

# ---- On NVIDIA's GPUs: CUDA and cuDNN come as packages too, the driver from the host.
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
