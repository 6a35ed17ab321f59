"""Starts LocalStack, corrected where it differs from AWS or Step Functions Local. Runs in ``.venv/localstack``."""

import tempfile
from types import SimpleNamespace
from typing import Any

from localstack.runtime.main import main
from localstack.services.s3 import provider as s3
from localstack.services.stepfunctions.asl.component.common.error_name.custom_error_name import CustomErrorName
from localstack.services.stepfunctions.asl.component.common.error_name.error_name import ErrorName
from localstack.services.stepfunctions.asl.component.common.error_name.failure_event import FailureEventException
from localstack.services.stepfunctions.asl.component.common.error_name.states_error_name import StatesErrorName
from localstack.services.stepfunctions.asl.component.common.retry import retrier_decl
from localstack.services.stepfunctions.asl.component.state.state_execution.state_parallel import branches_decl
from localstack.services.stepfunctions.asl.component.state.state_execution.state_task import mock_eval_utils
from localstack.services.stepfunctions.asl.component.state.state_execution.state_task.service import (
    state_task_service as tasks,
)
from localstack.services.stepfunctions.asl.component.state.state_execution.state_task.service import (
    state_task_service_dynamodb as dynamodb_tasks,
)


def find_the_sagemaker_runtime() -> None:
    """AWS has the integration ``aws-sdk:sagemakerruntime``; LocalStack finds no service of that name."""
    tasks.StateTaskService._SERVICE_NAME_SFN_TO_BOTO_OVERRIDES["sagemakerruntime"] = "sagemaker-runtime"


def pass_on_errors_of_step_functions() -> None:
    """Mocked tasks and branches of Parallel states can fail with States.Timeout; LocalStack rejects the name there."""

    def named(error_name: str) -> ErrorName:
        is_reserved = error_name.startswith("States.")
        return StatesErrorName.from_name(error_name) if is_reserved else CustomErrorName(error_name)

    mock_eval_utils.CustomErrorName = branches_decl.CustomErrorName = named


def throw_mocked_errors_of_tables() -> None:
    """Step Functions Local throws the error that a case names; LocalStack throws another one in tasks of DynamoDB."""
    of_a_call = dynamodb_tasks.StateTaskServiceDynamoDB._from_error

    def from_error(self: Any, env: Any, ex: Exception) -> Any:
        return ex.failure_event if isinstance(ex, FailureEventException) else of_a_call(self, env, ex)

    dynamodb_tasks.StateTaskServiceDynamoDB._from_error = from_error


def retry_at_once() -> None:
    """Step Functions waits before each retry, which would add minutes to the tests."""
    retrier_decl.time = SimpleNamespace(sleep=lambda _seconds: None)


def keep_objects_in_the_temporary_directory() -> None:
    """LocalStack writes the contents of objects to a fixed directory of ``/tmp``, and leaves them there."""
    s3.DEFAULT_S3_TMP_DIR = tempfile.mkdtemp()


if __name__ == "__main__":
    find_the_sagemaker_runtime()
    pass_on_errors_of_step_functions()
    throw_mocked_errors_of_tables()
    retry_at_once()
    keep_objects_in_the_temporary_directory()
    main()
