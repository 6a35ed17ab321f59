"""Request and response models of the API's own routes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.limits import MAX_BYTES, MAX_KEY_BYTES
from core.options import Options

WebhookUrl = Annotated[
    str,
    Field(
        max_length=2048, description="URL of up to 2048 characters that receives the job's outcome, as a signed POST"
    ),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)


class UploadRequest(_Request):
    """An image to upload with a form."""

    name: str = Field(
        "image", max_length=255, description="file name of up to 255 characters; the result is named after it"
    )
    content_type: Annotated[
        str, Field(pattern=r"^image/[a-z0-9.+-]{1,60}$", description="MIME type of the image, e.g. image/png")
    ] = "image/jpeg"
    max_bytes: Annotated[int, Field(ge=1, le=MAX_BYTES, description="largest file that S3 accepts")] = MAX_BYTES
    sha256: (
        Annotated[
            str,
            Field(
                pattern=r"^[0-9a-f]{64}$",
                description="SHA-256 of the file, 64 hexadecimal digits: the form uploads no other file",
            ),
        ]
        | None
    ) = None


class UploadForm(_Response):
    """A presigned form. Post `fields` and then `file` to `url` as multipart/form-data, and `key` to `POST /jobs`."""

    key: str
    url: str
    fields: dict[str, str]


class ObjectSource(_Request):
    """An object in the uploads bucket."""

    key: Annotated[
        str, Field(min_length=1, max_length=MAX_KEY_BYTES, description=f"object key of 1 to {MAX_KEY_BYTES} characters")
    ]
    version_id: Annotated[str, Field(min_length=1, max_length=1024, description="version ID of the object")] | None = (
        None
    )


class JobRequest(_Request):
    """An image to process: an object of the uploads bucket, or a URL."""

    source: ObjectSource | None = None
    image_url: (
        Annotated[str, Field(min_length=1, max_length=8192, description="URL of up to 8192 characters")] | None
    ) = None
    options: dict[str, Any] = Field(default={}, description="object with options")
    webhook_url: WebhookUrl | None = None


class Result(_Response):
    """The result of a job; `url` is valid for one hour."""

    url: str
    key: str
    content_type: str
    width: int
    height: int
    bytes: int


class Metrics(_Response):
    """Facts about the job, from the result's sidecar."""

    timings_s: dict[str, float]
    model: dict[str, Any]
    quality: dict[str, Any]
    source: dict[str, Any]
    cache_hit: bool
    degraded: bool
    warnings: list[str]


class ProblemDocument(_Response):
    """An error by RFC 9457. With a status of 500 or above, only title, status, code and request id are sent."""

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


class JobDocument(_Response):
    """A job."""

    job_id: str
    status: Literal["queued", "running", "succeeded", "failed"]
    created_at: str
    source_key: str
    stage: str | None = Field(default=None, description="current state of a running execution")
    result: Result | None = None
    metrics: Metrics | None = None
    credits: int | None = Field(default=None, description="price of an ended job")
    error: ProblemDocument | None = Field(default=None, description="the failure, in the format of an error response")


class ProcessResponse(_Response):
    """A finished image: `image` in base64; or `result_url` if it is too large, or if `delivery` is `url`."""

    success: Literal[True] = True
    job_id: str
    content_type: str
    image: str | None = None
    result_url: str | None = None
    metrics: Metrics
    credits: int = Field(description="price of the job")


class Accepted(_Response):
    """A job that has not ended yet. Poll `location` for its state."""

    job_id: str
    status: Literal["queued", "running"]
    location: str


class Step(_Response):
    """An event of the job's execution; `ms` is the time since the first event."""

    id: int
    ms: int
    type: str
    state: str
    detail: str


class Steps(_Response):
    """The events of the job's execution so far, oldest first."""

    events: list[Step]


class Health(_Response):
    """The API responds."""

    status: Literal["ok"] = "ok"


class Ready(_Response):
    """Whether each resource that a job needs exists."""

    ready: bool
    bucket: bool
    table: bool
    machine: bool
    queue: bool


class ProcessBody(Options):
    """The request body of `POST /process`. Options are top-level members."""

    image: str | None = Field(default=None, description="the image: a file in a form, base64 in JSON; or image_url")
    image_url: str | None = Field(default=None, description="URL of the image")
    background: str | None = Field(default=None, description="background image, like image; or background_url")
    background_url: str | None = Field(default=None, description="URL of the background image")
    name: str | None = Field(default=None, description="file name; the result is named after it")
    delivery: Literal["inline", "url"] = Field(
        default="inline", description="inline: the result in base64 unless it is too large; url: always a presigned URL"
    )
    webhook_url: WebhookUrl | None = None
