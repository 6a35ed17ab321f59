# One image for all Lambda functions, the ECS worker, and the SageMaker endpoint, with two targets:
# --target cpu, and --target gpu with CUDA. docs/how-to/containers.md describes how to build and run each.
# sam build uses Docker's classic builder: no syntax line, no RUN --mount, no COPY --chmod. That builder runs every
# stage above the target, so stages for gpu only come after cpu.

FROM public.ecr.aws/docker/library/python:3.12-slim-bookworm AS base
WORKDIR /app
ENV ORT_DISABLE_TELEMETRY=1 \
    PATH=/opt/venv/bin:$PATH \
    PBR_MODEL_DIR=/opt/models \
    PBR_NUMBA_CACHE=/opt/numba \
    PYTHONUNBUFFERED=1
# Fargate copies the file modes of the image to a mounted volume only if the image declares the path as a volume.
VOLUME /tmp
# No USER, because sam local extends this image and needs root. The entry point drops root privileges.
ENTRYPOINT ["/app/entrypoint.sh"]

# ---- Packages. numba's cache compares file dates, and a registry truncates them to seconds: set one date for all files.
FROM base AS packages
COPY requirements/runtime.lock requirements/
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --require-hashes --no-deps \
        --only-binary :all: -r requirements/runtime.lock \
    && find /opt/venv -exec touch --no-dereference --date=@0 {} + \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

# ---- pymatting, compiled at build time: its first import would take a minute and need a writable disk.
FROM packages AS compiled
COPY core/__init__.py core/
COPY core/matting/__init__.py core/matting/compiled.py core/matting/
RUN python -c "\
from pathlib import Path; \
from core.matting import compiled; \
compiled.bake(Path('$PBR_NUMBA_CACHE'))"

# ---- Weights. Copies only the code that downloads them, so that other code changes keep this layer cached.
FROM packages AS weights
COPY core/__init__.py core/errors.py core/
COPY core/segmentation/__init__.py core/segmentation/registry.py core/segmentation/
COPY functions/__init__.py functions/
COPY functions/contracts/__init__.py functions/contracts/errors.py functions/contracts/
COPY functions/runtime/__init__.py functions/runtime/cgroup.py functions/runtime/download.py functions/runtime/weights.py \
    functions/runtime/
# Models to include, separated by spaces. "classical" has no weights; custom models are downloaded at run time, because
# the build has no access to their bucket.
ARG MODELS=birefnet-general-lite
ARG CUSTOM_MODELS=
# Base URL of the downloads; empty for rembg's releases.
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

# ---- Project code, readable for the unprivileged user of Lambda regardless of the modes in the checkout.
FROM base AS project
COPY entrypoint.sh ./
COPY core core
COPY functions functions
RUN chmod -R a+rX . && chmod a+x entrypoint.sh && python -m compileall -q core functions

# ---- CPU target
FROM base AS cpu
COPY --from=packages /opt/venv /opt/venv
COPY --from=compiled /opt/numba /opt/numba
COPY --from=weights /opt/models /opt/models
COPY --from=project /app /app

# ---- GPU target for NVIDIA. CUDA and cuDNN are Python packages; the driver comes from the host.
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
