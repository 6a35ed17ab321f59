"""Segmentation of a bulk run's images on the stack's real-time endpoint."""

import json
from typing import Any, Final

import boto3
from botocore.config import Config as SdkConfig
from botocore.exceptions import BotoCoreError, ClientError

from functions.contracts.job import Job, MaskPart
from functions.runtime.config import SDK

_SDK: Final = SDK.merge(SdkConfig(read_timeout=65))  # a real-time endpoint answers within 60 s


class EndpointError(Exception):
    """The endpoint failed. ``caught`` has ``Error`` and ``Cause``, as a state machine records them."""

    def __init__(self, error: str, cause: str) -> None:
        self.caught = {"Error": error, "Cause": cause}
        super().__init__(f"{error}: {cause}")


class Endpoint:
    """An endpoint that runs ``functions.segment.sagemaker.server``.

    Args:
        name: of the endpoint.
        client: SageMaker runtime client; None creates one from the environment.
    """

    def __init__(self, name: str, client: Any = None) -> None:
        self._name = name
        self._client = client or boto3.client("sagemaker-runtime", config=_SDK)

    def segment(self, job: Job) -> MaskPart:
        """Have the endpoint write the job's mask to the work bucket.

        Raises:
            EndpointError: the endpoint does not answer, or its container failed.
        """
        try:
            answer = self._client.invoke_endpoint(
                EndpointName=self._name,
                ContentType="application/json",
                Accept="application/json",
                Body=job.model_dump_json(),
            )
            return MaskPart.model_validate(json.loads(answer["Body"].read()))
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            raise EndpointError(f"SageMakerRuntime.{code}", message) from error
        except (BotoCoreError, ValueError) as error:
            raise EndpointError(type(error).__name__, str(error)) from error
