"""The handler decorator of the stages, the logger, and functions that publish metrics."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.metrics import EphemeralMetrics
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ValidationError

from core.errors import BackgroundRemoverError, InvalidRequestError, reason
from functions.contracts.errors import to_wire
from functions.contracts.metrics import METRICS

logger = Logger(build=os.environ.get("PBR_BUILD") or None)  # omitted if None
"""Each line has the build of the container image: the version and commit of the code that wrote it."""

_NAMESPACE: Final = "PrecisionBackgroundRemover"
"""Namespace of the metrics of a container that no stack started."""

Request = TypeVar("Request", bound=BaseModel)
Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]


def stage(request: type[Request]) -> Callable[[Callable[[Request], dict[str, Any]]], Handler]:
    """Return a decorator that makes a Lambda handler from a function of one request.

    The handler parses the event, adds the job ID to log lines, and passes errors on as JSON. Errors keep their class,
    by which the state machine selects Retry or Catch.

    Args:
        request: model of the event.
    """

    def decorate(work: Callable[[Request], dict[str, Any]]) -> Handler:
        @logger.inject_lambda_context(clear_state=True)
        @traced
        def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
            logger.append_keys(job_id=job_id(event))
            try:
                with outcome_logged():
                    return work(parse(request, event))
            except BackgroundRemoverError as error:
                error.args = (to_wire(error),)
                raise

        return handler

    return decorate


@contextmanager
def outcome_logged() -> Iterator[None]:
    """Log the start and the outcome of a block. By its first line, a call that crashes is found with its job ID."""
    logger.info("stage started")
    try:
        yield
    except BackgroundRemoverError as error:
        logger.warning("stage failed", extra={"failure": error.facts()})
        raise
    except Exception:
        logger.exception("stage failed unexpectedly")
        raise
    logger.info("stage done")


@contextmanager
def job_in_thread(name: str | None) -> Iterator[None]:
    """Add a job ID to the log lines of this thread."""
    logger.thread_safe_append_keys(job_id=name)
    try:
        yield
    finally:
        logger.thread_safe_clear_keys()


def job_id(event: Mapping[str, Any]) -> str | None:
    """Return the name of the execution that an event is about; None if the event is invalid.

    For the functions of a bulk run, that is the run.
    """
    match event:
        case (
            {"execution": {"name": str(name)}}
            | {"BatchInput": {"run": {"name": str(name)}}}
            | {"plan": {"run": {"name": str(name)}}}
            | {"detail": {"executionArn": str(), "name": str(name)}}
        ):
            return name
    return None


def traced(handler: Handler) -> Handler:
    """Record calls of a Lambda handler in X-Ray, where Lambda runs its daemon."""
    if "AWS_XRAY_DAEMON_ADDRESS" not in os.environ:  # do not import the X-Ray SDK for nothing: that takes 0.3 s
        return handler
    return cast(Handler, Tracer().capture_lambda_handler(handler, capture_response=False))


def parse(request: type[Request], event: dict[str, Any]) -> Request:
    """Return the event as a request.

    Raises:
        InvalidRequestError: the event does not match the model; ``field`` is the first invalid field.
    """
    try:
        return request.model_validate(event)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidRequestError(
            f"Invalid {request.__name__}: {reason(first['msg'])}",
            field=".".join(map(str, first["loc"])),
            value=first["input"],
            remedy="Compare the event with the example in events/.",
        ) from None


def count(name: str, /, **dimensions: str) -> None:
    """Publish a count of one; see :func:`measure`."""
    measure(name, 1, **dimensions)


def measure(name: str, value: float, /, **dimensions: str) -> None:
    """Publish a value of a metric, in each of its dimension sets, by a line of the log in embedded metric format.

    Example:
        ``measure("ProcessingTime", 412.5, Stage="refine", ImageSize="<=4MP")``

    Args:
        name: of a metric in :data:`functions.contracts.metrics.METRICS`.
        value: in the metric's unit.
        dimensions: all dimensions of the metric.

    Raises:
        ValueError: the metric has other dimensions.
    """
    metric = METRICS[name]
    if dimensions.keys() != metric.dimensions:
        raise ValueError(f"{name} has the dimensions {sorted(metric.dimensions)}, not {sorted(dimensions)}")
    # Without service="", POWERTOOLS_SERVICE_NAME would become a dimension.
    metrics = EphemeralMetrics(namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", _NAMESPACE), service="")
    metrics.add_metric(name, metric.unit, value)
    first, *others = metric.dimension_sets
    for dimension in first:
        metrics.add_dimension(dimension, dimensions[dimension])
    for dimension_set in others:
        metrics.add_dimensions(**{dimension: dimensions[dimension] for dimension in dimension_set})
    # A single write: lines of several threads must not mix, and the message must have nothing but JSON.
    sys.stdout.write(json.dumps(metrics.serialize_metric_set(), separators=(",", ":")) + "\n")
    sys.stdout.flush()
