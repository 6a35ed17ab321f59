"""What makes a function a stage: its input parsed, its log lines tagged, its errors put on the wire; and metrics."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from aws_lambda_powertools import Logger, Tracer, single_metric
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ValidationError

from core.errors import BackgroundRemoverError, InvalidRequestError
from functions.contracts.errors import to_wire

logger = Logger()
tracer = Tracer()

Request = TypeVar("Request", bound=BaseModel)
Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]


def stage(request: type[Request]) -> Callable[[Callable[[Request], dict[str, Any]]], Handler]:
    """Make a Lambda handler of a function that takes one request and returns its own part of the state.

    An error of ours keeps its class, by which the state machine chooses between Retry and Catch, and carries its facts
    as JSON.

    Args:
        request: the model that the event is parsed into.
    """

    def decorate(work: Callable[[Request], dict[str, Any]]) -> Handler:
        @logger.inject_lambda_context(clear_state=True)
        @tracer.capture_lambda_handler(capture_response=False)
        def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
            logger.append_keys(job_id=(event.get("execution") or {}).get("name"))
            try:
                part = work(parse(request, event))
            except BackgroundRemoverError as error:
                logger.warning("stage failed", extra={"failure": error.facts()})
                error.args = (to_wire(error),)
                raise
            logger.info("stage done")
            return part

        return cast(Handler, handler)

    return decorate


def parse(request: type[Request], event: dict[str, Any]) -> Request:
    """Parse an event.

    Raises:
        InvalidRequestError: it is not what the stage before hands on; names the first field at fault.
    """
    try:
        return request.model_validate(event)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidRequestError(
            f"The event is not a {request.__name__}: {first['msg']}",
            field=".".join(map(str, first["loc"])),
            value=first["input"],
            remedy="Compare it with the function's file in events/.",
        ) from None


def count(name: str, dimensions: dict[str, str]) -> None:
    """Publish one occurrence."""
    measure(name, MetricUnit.Count, 1, dimensions)


def measure(name: str, unit: MetricUnit, value: float, dimensions: dict[str, str]) -> None:
    """Publish one value under all of its dimensions together."""
    with single_metric(name=name, unit=unit, value=value) as metric:
        for dimension, text in dimensions.items():
            metric.add_dimension(name=dimension, value=text)
