# One image for every Lambda function, the ECS worker and the SageMaker endpoint.
# sam build uses Docker's classic builder: no syntax line, no RUN --mount, no COPY --chmod.
FROM public.ecr.aws/docker/library/python:3.12-slim-bookworm

WORKDIR /app

ENV ORT_DISABLE_TELEMETRY=1 \
    PBR_MODEL_DIR=/opt/models \
    PBR_NUMBA_CACHE=/opt/numba \
    PYTHONUNBUFFERED=1

COPY requirements/runtime.lock requirements/runtime.lock
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --require-hashes --only-binary :all: -r requirements/runtime.lock

# Compiled here, because at its first import it would take a minute, and needs a disk that can be written.
COPY core/__init__.py core/compiled.py core/
RUN python -c "\
from pathlib import Path; \
from core import compiled; \
compiled.bake(Path('$PBR_NUMBA_CACHE'))"

# The model whose weights the image carries; empty or "classical" for none.
ARG MODEL=birefnet-general-lite
# Where they are fetched from; empty for rembg's releases.
ARG MODEL_MIRROR=
COPY core/download.py core/errors.py core/models.py core/
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
