"""Deploy the project's template to moto in this process, and run it."""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Self

from embedded_cloud.activity import Activity
from embedded_cloud.callers import OWN_KEY, access_key
from embedded_cloud.deploy import create_stack, translate
from embedded_cloud.faults import FaultPlan, with_faults
from embedded_cloud.lambda_runtime import LambdaRuntime
from embedded_cloud.processes import NO_USER_FILES, Log, base_environment
from embedded_cloud.sandbox import Function

DEFAULT_REGION = "eu-west-1"
LOOPBACK = "127.0.0.1"
ALARM_INTERVAL_S = 10.0
CALLS_VARIABLE = "PBR_CALLS_DIR"
"""Names a folder, to which each cloud writes the permissions that the calls of its roles use."""


class EmbeddedCloud:
    """A SAM template deployed on moto, with functions, ECS tasks and SageMaker endpoints as local processes.

    State is in memory and ends with the calling process. A process can run one cloud at a time.

    Args:
        template: SAM template. Function and container modules are imported from its folder.
        parameters: template parameters by name.
        port: port of the AWS endpoint on localhost; 0 for any free port.
        address: listen address. 0.0.0.0 lets containers and the network reach the cloud.
        mock_config: MockConfigFile.json of AWS Step Functions Local. StartExecution with ``stateMachineArn#TestCase``
            runs one of its test cases.
        retry_pace: factor for the delays between retries, 0 or more; 1 keeps the state machine's delays.
        faults: faults to inject; None injects none.
        api_port: port of the HTTP API on localhost; 0 for any free port.
        alarm_interval_s: time between evaluations of alarms, in seconds; None to evaluate only on request.
        is_empty: whether to start without a stack. The template then only says where the code is.

    Attributes:
        region: AWS_DEFAULT_REGION, or eu-west-1.
        endpoint_url: value of AWS_ENDPOINT_URL for an AWS CLI or SDK.
        environment: environment variables that an AWS CLI or SDK needs.
        outputs: outputs of the stack.
        skipped: ignored resources and properties: logical id, resource type or property, and reason.
    """

    stack_name = "precision-background-remover"

    def __init__(
        self,
        template: Path = Path("template.yaml"),
        parameters: Mapping[str, str] | None = None,
        port: int = 0,
        mock_config: Path | None = None,
        address: str = LOOPBACK,
        retry_pace: float = 1.0,
        faults: FaultPlan | None = None,
        api_port: int = 0,
        alarm_interval_s: float | None = ALARM_INTERVAL_S,
        is_empty: bool = False,
    ) -> None:
        self.region = os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
        self.endpoint_url = ""
        self.environment: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self.skipped: list[tuple[str, str, str]] = []
        self._template, self._parameters = template.resolve(), dict(parameters or {})
        self._api_port, self._is_empty = api_port, is_empty
        self._port, self._mock_config, self._address = port, mock_config, address
        self._retry_pace, self._faults = retry_pace, faults
        self._alarm_interval_s = alarm_interval_s
        self._closed = threading.Event()
        self._activity = Activity()
        self._restore_environment: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        """Start the servers, and deploy the template unless the cloud starts empty.

        Raises:
            OSError: a port is in use.
            RuntimeError: another cloud is running in this process.
        """
        self._restore_environment = _without_user_settings()
        try:
            self._start()
        except BaseException:
            self._restore_environment()
            raise
        return self

    def _start(self) -> None:
        from embedded_cloud import moto_patches

        moto_patches.apply()
        from moto.moto_api._internal.models import moto_api_backend
        from moto.server import ThreadedMotoServer

        from embedded_cloud.moto_patches import host, service_metrics

        self._queues = service_metrics.QueueSampler()
        _free_port(self._address, self._api_port)
        port = _free_port(self._address, self._port)
        self.endpoint_url = f"http://localhost:{port}"  # `aws cloudformation deploy` needs a host name
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",  # StartSyncExecution goes to sync-<host> otherwise
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
        }
        code = self._template.parent
        own = {**self.environment, "AWS_ACCESS_KEY_ID": OWN_KEY}
        base = base_environment(code, own)
        functions = LambdaRuntime(base, code, self._open_log, self._faults)
        self._host = host.Host(
            sdk=own,
            environment=base,
            code=code,
            mock_config=self._mock_config,
            open_log=self._open_log,
            functions=functions,
            skipped=self.skipped,
            retry_pace=self._retry_pace,
            address=self._address,
            api_port=self._api_port,
            activity=self._activity,
        )
        host.start(self._host)
        moto_api_backend.reset()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # logs every request
        logging.getLogger("moto.stepfunctions").setLevel(logging.CRITICAL)  # logs every caught error
        self._server = ThreadedMotoServer(self._address, port, verbose=False)
        self._server.start()
        self._server._server.app = self._activity.watch(self._server._server.app)
        if self._faults:
            self._server._server.app = with_faults(self._server._server.app, self._faults)
        try:
            if not self._is_empty:
                self._deploy()
        except BaseException:
            self.close()
            raise
        if self._alarm_interval_s is not None:
            threading.Thread(target=self._watch_alarms, daemon=True).start()
        self._activity.touch()

    def __exit__(self, *_exception: object) -> None:
        """Close the cloud."""
        self.close()

    def skipped_by_reason(self) -> dict[tuple[str, str], list[str]]:
        """Return the logical ids in ``skipped``, grouped by type or property and reason."""
        grouped: dict[tuple[str, str], list[str]] = {}
        for logical_id, what, why in sorted(self.skipped, key=itemgetter(1, 2)):
            grouped.setdefault((what, why), []).append(logical_id)
        return grouped

    def start_functions(self) -> None:
        """Start a process of each function in the background, in the order of the template, as memory allows.

        Otherwise a process starts at the first call.
        """
        from embedded_cloud.moto_patches import versions
        from embedded_cloud.moto_patches.awslambda import configuration

        cloudformation = self._host.client("cloudformation")
        resources = cloudformation.describe_stack_resources(StackName=self.stack_name)["StackResources"]
        names = [found["PhysicalResourceId"] for found in resources if found["ResourceType"] == "AWS::Lambda::Function"]
        self._host.functions.start(configuration(versions.served(name)) for name in names)

    def functions(self) -> list[Function]:
        """Return the configuration of every function, those of nested stacks included."""
        from moto.awslambda.models import lambda_backends
        from moto.core import DEFAULT_ACCOUNT_ID

        from embedded_cloud.moto_patches.awslambda import configuration

        return [configuration(found) for found in lambda_backends[DEFAULT_ACCOUNT_ID][self.region].list_functions()]

    def environment_of(self, role: str) -> dict[str, str]:
        """Return ``environment`` for a process that acts with a role of the stack.

        Args:
            role: logical id, after those of its nested stacks, e.g. ``WebStack/WebRole``.

        Raises:
            KeyError: the stack has no such role.
        """
        from embedded_cloud.moto_patches import iam

        return {**self.environment, "AWS_ACCESS_KEY_ID": access_key(iam.role_name(role))}

    def grants(self) -> list[list[str]]:
        """Return what the roles of the stack allow: role, action and resource, with logical ids for generated names."""
        from embedded_cloud.moto_patches import iam

        return iam.grants()

    def idle_s(self) -> float:
        """Return the seconds since the last request of a user; 0 while an execution is running.

        After an execution, they count from the last call that found it running.
        """
        from embedded_cloud.moto_patches import stepfunctions

        if stepfunctions.is_any_execution_running():
            self._activity.touch()
        return self._activity.idle_s()

    def evaluate_alarms(self, now: datetime | None = None) -> dict[str, str]:
        """Sample the queues, evaluate every alarm, and return the states by name.

        Args:
            now: end of the evaluated time, by default now. A period counts once it is over: for data of this minute,
                give a minute from now.
        """
        from embedded_cloud.moto_patches import alarms

        self._queues.sample()
        return alarms.evaluate(now or datetime.now(UTC))

    def kill_tasks(self) -> None:
        """Kill every ECS task. Its service restarts it."""
        for service in list(self._host.services.values()):
            service.kill()

    def close(self) -> None:
        """End every process and server, and with them all that the cloud stores."""
        from embedded_cloud.moto_patches import host, iam, stepfunctions

        self._closed.set()
        stepfunctions.stop_every_execution()
        self._host.close()
        if path := _calls_file():
            iam.write_used_grants(path)
        self._server.stop()
        self._server._server.server_close()  # moto keeps the port open
        host.stop()
        self._restore_environment()

    def _watch_alarms(self) -> None:
        """Evaluate alarms until the cloud is closed."""
        while not self._closed.wait(self._alarm_interval_s):
            try:
                self.evaluate_alarms()
            except Exception:  # the next evaluation may succeed
                if not self._closed.is_set():
                    logging.getLogger(__name__).exception("The alarms were not evaluated")

    def _deploy(self) -> None:
        template = translate(self._template, self._parameters, self.region)
        self.outputs = create_stack(self._host.client("cloudformation"), self.stack_name, template, self._parameters)

    def _open_log(self, group: str, stream: str) -> Log:
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.logs.models import logs_backends

        logs = logs_backends[DEFAULT_ACCOUNT_ID][self.region]

        def create() -> None:
            logs.ensure_log_group(group)
            logs.create_log_stream(group, stream)

        create()

        def log(line: str) -> None:
            if group not in logs.groups or stream not in logs.groups[group].streams:  # a user has deleted it
                create()
            logs.put_log_events(group, stream, [{"timestamp": int(time.time() * 1000), "message": line}])

        return log


def _without_user_settings() -> Callable[[], None]:
    """Make AWS SDKs in this process ignore the user's profile and files; return a function that reverts that.

    They may be missing or invalid, and moto and the SAM translator make sessions of their own.
    """
    hidden = {name: os.environ.pop(name, None) for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", *NO_USER_FILES)}
    os.environ.update(NO_USER_FILES)

    def restore() -> None:
        for name, value in hidden.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    return restore


def _calls_file() -> Path | None:
    """Return a new file for the permissions that calls use; None if none is wanted."""
    folder = os.environ.get(CALLS_VARIABLE)
    if not folder:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder, f"{uuid.uuid4()}.jsonl")


def _free_port(address: str, wanted: int) -> int:
    """Return the port, or a free one for 0. moto exits the process if it cannot bind."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, wanted))
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: port {wanted}") from None
        port: int = probe.getsockname()[1]
        return port
