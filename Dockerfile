# One image for every Lambda function, the ECS worker and the SageMaker endpoint.
# sam build uses Docker's classic builder: no syntax line, no RUN --mount, no COPY --chmod.
FROM public.ecr.aws/docker/library/python:3.12-slim-bookworm

WORKDIR /app

# NUMBA_DISABLE_JIT: rembg imports pymatting, which nothing here calls. Compiling it on import takes 40 s and needs a
# disk that can be written; Lambda's cannot.
ENV NUMBA_DISABLE_JIT=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PBR_MODEL_DIR=/opt/models \
    PYTHONUNBUFFERED=1

COPY requirements/runtime.lock requirements/runtime.lock
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --require-hashes --only-binary :all: -r requirements/runtime.lock

# The model whose weights the image carries; empty or "classical" for none.
ARG MODEL=birefnet-general-lite
# Where they are fetched from; empty for rembg's releases.
ARG MODEL_MIRROR=
COPY core/__init__.py core/download.py core/errors.py core/models.py core/
RUN mkdir -p "$PBR_MODEL_DIR" \
    && if [ -n "$MODEL" ] && [ "$MODEL" != classical ]; then python -c "\
from pathlib import Path; \
from core import models; \
models.weights('$MODEL', models.ModelSource(Path('$PBR_MODEL_DIR'), '$MODEL_MIRROR', timeout_s=1800))"; fi

COPY entrypoint.sh ./
COPY core core
COPY functions functions
# Lambda runs as a user of its own, whatever the modes of the checkout were.
RUN chmod -R a+rX . && python -m compileall -q core functions

# No USER here: sam local builds on this image and needs root for it. The entry point steps down from root.
ENTRYPOINT ["./entrypoint.sh"]
