"""What the API's own routes take and answer, as its document describes them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.limits import MAX_BYTES, MAX_KEY_BYTES
from core.options import Options

WebhookUrl = Annotated[str, Field(max_length=2048, description="where to post how the job has ended; signed")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class UploadRequest(_Request):
    """A picture that is to be uploaded by a form."""

    name: str = Field("image", max_length=255, description="the file's name, which the result is named after")
    content_type: Annotated[str, Field(pattern=r"^image/[a-z0-9.+-]{1,60}$", description="its MIME type")] = (
        "image/jpeg"
    )
    max_bytes: Annotated[int, Field(ge=1, le=MAX_BYTES, description="the largest file that S3 is to accept")] = (
        MAX_BYTES
    )


class UploadForm(_Answer):
    """A form: ``fields`` and then ``file``, posted to ``url`` as multipart/form-data. ``POST /jobs`` takes ``key``."""

    key: str
    url: str
    fields: dict[str, str]


class ObjectSource(_Request):
    """An object in the uploads bucket."""

    key: Annotated[str, Field(min_length=1, max_length=MAX_KEY_BYTES)]
    version_id: Annotated[str, Field(min_length=1, max_length=1024)] | None = None


class JobRequest(_Request):
    """A picture to process, an object or a URL; ``options`` as of an upload."""

    source: ObjectSource | None = None
    image_url: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    options: dict[str, Any] = {}
    webhook_url: WebhookUrl | None = None


class Result(_Answer):
    """The finished picture; ``url`` leads there for an hour."""

    url: str
    key: str
    content_type: str
    width: int
    height: int
    bytes: int


class Metrics(_Answer):
    """What the job did, from the result's sidecar."""

    timings_s: dict[str, float]
    model: dict[str, Any]
    quality: dict[str, Any]
    source: dict[str, Any]
    cache_hit: bool
    degraded: bool
    warnings: list[str]


class ProblemDocument(_Answer):
    """RFC 9457. From status 500 on there is nothing but title, status, code and request id."""

    type: str
    title: str
    status: int
    code: str
    detail: str | None = None
    field: str | None = None
    value: Any = None
    remedy: str | None = None
    job_id: str | None = None
    request_id: str


class JobDocument(_Answer):
    """A job."""

    job_id: str
    status: Literal["queued", "running", "succeeded", "failed"]
    created_at: str
    source_key: str
    stage: str | None = Field(default=None, description="the state of the machine that a running job is in")
    result: Result | None = None
    metrics: Metrics | None = None
    error: ProblemDocument | None = Field(default=None, description="what failed, as POST /process would have said it")


class ProcessAnswer(_Answer):
    """A finished picture: ``image`` in base64, or ``result_url`` where it is too large or a URL was asked for."""

    success: Literal[True] = True
    job_id: str
    content_type: str
    image: str | None = None
    result_url: str | None = None
    metrics: Metrics


class Accepted(_Answer):
    """A job that is not done yet; ``location`` tells of it."""

    job_id: str
    status: Literal["queued", "running"]
    location: str


class Step(_Answer):
    """An event of a job's execution, ``ms`` after its first."""

    id: int
    ms: int
    type: str
    state: str
    detail: str


class Steps(_Answer):
    """The events of a job's execution so far, oldest first."""

    events: list[Step]


class Health(_Answer):
    """The function answers."""

    status: Literal["ok"] = "ok"


class Ready(_Answer):
    """Whether each thing that a job needs is there."""

    ready: bool
    bucket: bool
    table: bool
    machine: bool
    queue: bool


class ProcessBody(Options):
    """What ``POST /process`` takes, for its document: options stand beside the picture."""

    image: str | None = Field(default=None, description="the picture's file, in JSON as base64; or image_url")
    image_url: str | None = Field(default=None, description="where the picture is fetched from")
    background: str | None = Field(default=None, description="a picture to put the subject on; or background_url")
    background_url: str | None = Field(default=None, description="where that is fetched from")
    name: str | None = Field(default=None, description="the file's name, which the result is named after")
    delivery: Literal["inline", "url"] = Field(default="inline", description="url: a URL even of a small result")
    webhook_url: WebhookUrl | None = None
