"""SageMaker: transform jobs run their containers, and Step Functions starts them and waits for their end."""

import json
import threading
import uuid
from typing import Any

from botocore.exceptions import ClientError
from moto.core.responses import EmptyResult
from moto.core.utils import utcnow
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError
from moto.sagemaker.models import FakeTransformJob, SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse
from moto.stepfunctions.parser.api import HistoryEventType
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.state.exec.state_task import state_task_factory
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.resource import ResourceCondition
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_callback import (
    StateTaskServiceCallback,
)
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.utils.encoding import to_json_str

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running
from embedded_cloud.moto_patches.sagemaker import SERVE_MODULE
from embedded_cloud.processes import Endpoint
from embedded_cloud.transform import Transform, TransformFailedError, TransformSettings

LOG_GROUP = "/aws/sagemaker/TransformJobs"
_PATTERNS = {ResourceCondition.WaitForTaskToken, ResourceCondition.Sync}  # moto crashes without the first
_MODELLED = {"ResourceNotFound", "ResourceInUse", "ResourceLimitExceeded"}
_ENDED = ("Completed", "Failed", "Stopped")


@around(SageMakerModelBackend, "create_transform_job")
def run_the_transform_job(original: Any, self: Any, **given: Any) -> Any:
    """AWS runs the model's container on the objects; moto ends each job at once."""
    name, host = given["transform_job_name"], running()
    if name in self.transform_jobs:
        raise ResourceInUseException(f"Job name must be unique within an AWS account and region: {name} exists.")
    if (model := self._models.get(given["model_name"])) is None:
        raise ValidationError(f'Could not find model "{given["model_name"]}".')
    job = original(self, **given)
    job.transform_job_status, job.transform_end_time = "InProgress", None
    environment = {**model.primary_container.get("Environment", {}), **(given["environment"] or {})}
    log = host.open_log(LOG_GROUP, f"{name}/i-{uuid.uuid4().hex[:17]}")
    container = Endpoint(
        [SERVE_MODULE],
        {**host.environment_of(model.execution_role_arn), **{key: str(value) for key, value in environment.items()}},
        host.code,
        log,
    )
    settings = TransformSettings(
        source=given["transform_input"],
        output=given["transform_output"],
        client=given["model_client_config"] or {},
        strategy=given["batch_strategy"] or "",
        concurrency=int(given["max_concurrent_transforms"] or 0),
        payload_mb=given["max_payload_in_mb"],
    )
    s3 = host.client("s3", model.execution_role_arn)
    host.transforms[name] = transform = Transform(settings, container, s3, log)
    threading.Thread(target=_run, args=(job, transform), name=f"transform-{name}", daemon=True).start()
    return job


def _run(job: FakeTransformJob, transform: Transform) -> None:
    status, reason = "Completed", ""
    try:
        transform.run()
    except TransformFailedError as error:
        status, reason = "Failed", str(error)
    except Exception as error:  # the job's status is where it can be seen
        status, reason = "Failed", f"InternalServerError: {error}"
    job.failure_reason = "" if transform.is_stopped else reason
    job.transform_end_time = job.last_modified_time = utcnow()
    job.transform_job_status = "Stopped" if transform.is_stopped else status


def stop_transform_job(self: Any) -> Any:
    """AWS stops the job; moto does not have the operation."""
    name = self._get_param("TransformJobName")
    if (job := self.sagemaker_backend.transform_jobs.get(name)) is None:
        raise ValidationError(f"Could not find transform job '{name}'.")
    if job.transform_job_status == "InProgress":
        job.transform_job_status = "Stopping"
        running().transforms[name].stop()
    return EmptyResult()


SageMakerResponse.stop_transform_job = stop_transform_job


class StateTaskServiceSageMaker(StateTaskServiceCallback):  # type: ignore[misc]
    """The integration ``states:::sagemaker:createTransformJob.sync``."""

    def __init__(self) -> None:
        super().__init__(supported_integration_patterns=_PATTERNS)

    def _get_supported_parameters(self) -> set[str] | None:
        if self.resource.api_action.lower() != "createtransformjob":
            return None
        shape = running().client("sagemaker").meta.service_model.operation_model("CreateTransformJob").input_shape
        return set(shape.members)

    def _get_boto_service_name(self, boto_service_name: str | None = None) -> str:
        return "sagemaker"

    def _eval_service_task(
        self, env: Any, resource_runtime_part: Any, normalised_parameters: Any, state_credentials: Any
    ) -> None:
        client = running().client("sagemaker", state_credentials.role_arn)
        response = client.create_transform_job(**normalised_parameters)
        response.pop("ResponseMetadata", None)
        env.stack.append(response)

    def _build_sync_resolver(
        self, env: Any, resource_runtime_part: Any, normalised_parameters: Any, state_credentials: Any
    ) -> Any:
        env.stack.pop()
        name, client = (
            normalised_parameters["TransformJobName"],
            running().client("sagemaker", state_credentials.role_arn),
        )

        def described() -> Any:
            """Return the ended job; None while it runs."""
            job = client.describe_transform_job(TransformJobName=name)
            job.pop("ResponseMetadata", None)
            if job["TransformJobStatus"] not in _ENDED:
                return None
            found = json.loads(to_json_str(job))
            if job["TransformJobStatus"] != "Failed":
                return found
            error = StatesErrorName(StatesErrorNameType.StatesTaskFailed)
            details = {"error": error.error_name, "cause": json.dumps(found), **self._names()}
            event = EventDetails(taskFailedEventDetails=details)
            raise FailureEventException(FailureEvent(env, error, HistoryEventType.TaskFailed, event))

        described.stop = lambda: client.stop_transform_job(TransformJobName=name)  # type: ignore[attr-defined]
        return described

    def _eval_sync(self, env: Any, sync_resolver: Any, **kwargs: Any) -> Any:
        outcome = super()._eval_sync(env=env, sync_resolver=sync_resolver, **kwargs)
        if not env.is_running():  # AWS stops the job when its execution is stopped or the state times out
            sync_resolver.stop()
        return outcome

    def _names(self) -> dict[str, str]:
        return {"resource": self._get_sfn_resource(), "resourceType": self._get_sfn_resource_type()}

    def _from_error(self, env: Any, ex: Exception) -> Any:
        if not isinstance(ex, ClientError):
            return super()._from_error(env=env, ex=ex)
        code = ex.response["Error"]["Code"]
        name = f"SageMaker.{code if code in _MODELLED else 'AmazonSageMaker'}Exception"
        cause = f"{ex.response['Error']['Message']} (Service: AmazonSageMaker; Error Code: {code})"
        event = EventDetails(taskFailedEventDetails={"error": name, "cause": cause, **self._names()})
        return FailureEvent(env, CustomErrorName(name), HistoryEventType.TaskFailed, event)


@around(state_task_factory, "state_task_service_for")
def know_sagemaker(original: Any, service_name: str) -> Any:
    """AWS integrates SageMaker; moto rejects the service."""
    return StateTaskServiceSageMaker() if service_name == "sagemaker" else original(service_name=service_name)
