"""IAM: denies the calls of processes and state machines that their roles do not allow, and records those allowed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from moto.cloudformation.models import Stack, cloudformation_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.errors import COMMON_ERROR_CODES
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.iam.models import Role, iam_backends
from moto.s3.exceptions import MissingKey, MissingVersion, S3ClientError
from moto.s3.responses import S3Response
from moto.stepfunctions.parser.api import ExecutionStatus
from moto.utilities.utils import get_partition

from embedded_cloud.api_calls import Call, Given, Place, UnknownCallError, calls, s3_calls
from embedded_cloud.callers import Caller, caller_of
from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running
from embedded_cloud.policies import DeniedError, Grant, Permissions, UnsupportedPolicyError

_UNSUPPORTED = (UnknownCallError, UnsupportedPolicyError)
_RANDOM = re.compile(r".*-[A-Za-z0-9]{12}(-[A-Za-z0-9]{6})?")  # names that CloudFormation generates, and UUIDs
_CODES = {"sns": "AuthorizationError"} | dict.fromkeys(("cloudformation", "monitoring", "sqs"), "AccessDenied")
# The models of most services do not define these codes, and moto warns of others.
COMMON_ERROR_CODES += ["AccessDenied", "AccessDeniedException", "AuthorizationError"]


class RoleError(ServiceException):  # type: ignore[misc]
    """A call that the caller's role does not allow. moto's own class must have the module of a service."""


@around(BaseResponse, "call_action")
def deny_what_the_role_does_not_allow(original: Any, self: Any) -> Any:
    """AWS denies a call that the policies of the caller's role do not allow; moto allows every call."""
    caller = _caller(self)
    if role := _role(caller):
        try:
            operation = self._get_action()
            place = Place(self.partition, self.region, self.current_account)
            for call in calls(caller.service, operation, _given(self, operation), place):
                _authorize(role, call)
        except DeniedError as error:
            code = _CODES.get(caller.service, "AccessDeniedException")
            return _failure(self, RoleError(code, _message(role, error, error.call.resource)), 403)
        except _UNSUPPORTED as error:
            return _failure(self, RoleError("NotImplemented", str(error)), 501)
    return original(self)


def _failure(response: Any, error: RoleError, status: int) -> Any:
    _status, headers, body = response.serialized(ActionResult(error))
    return status, {**headers, "status": status}, body


def _given(response: Any, operation: str) -> Given:
    """Return a function that returns a parameter of a request."""
    if operation.startswith("SendTask"):
        return {"stateMachineArn": _machine_of(response.stepfunction_backend, response._get_param("taskToken"))}.get
    if uri := response.uri_match:  # REST: the body is a function's payload, or an image
        query = parse_qs(response.parsed_url.query)
        return {**{name: values[0] for name, values in query.items()}, **uri}.get
    given: Given = response._get_param
    return given


def _machine_of(backend: Any, token: str) -> str:
    """Return the ARN of the state machine that a task token belongs to; an unknown one belongs to none."""
    for execution in backend._get_executions(ExecutionStatus.RUNNING):
        if (env := execution.exec_worker.env) and env.callback_pool_manager.get(token):
            arn: str = execution.state_machine.arn
            return arn
    return ""


@around(S3Response, "_key_response")
@around(S3Response, "_bucket_response")
def deny_what_the_role_does_not_allow_in_s3(original: Any, self: Any, request: Any, full_url: str) -> Any:
    """AWS denies a request that the caller's role does not allow; moto allows every request.

    AWS says that an object does not exist only to callers who may list the bucket.
    """
    role = _role(_caller(self))
    if role is None:
        return original(self, request, full_url)
    bucket = self.parse_bucket_name_from_url(request, full_url)
    try:
        form = self.form_data.get("key") if request.method == "POST" and "policy" in self.form_data else None
        method, key = ("PUT", form) if form else (request.method, self.parse_key_name())
        needed = s3_calls(method, bucket, key, request.args, request.headers, self.partition, self.raw_body)
        for call in needed:
            _authorize(role, call)
        listing = Call("s3:ListBucket", needed[-1].resource.partition("/")[0])  # of the source of a copy
        try:
            response = original(self, request, full_url)
        except (MissingKey, MissingVersion):
            _authorize(role, listing)
            raise
        if response[0] == 404:
            _authorize(role, listing)
        return response
    except DeniedError as error:
        raise S3ClientError("AccessDenied", _message(role, error, f'"{error.call.resource}"')) from None
    except _UNSUPPORTED as error:
        raise S3ClientError("NotImplemented", str(error)) from None


def _caller(response: Any) -> Caller:
    request = response.normalized_request
    return caller_of(request.headers, request.args, request.form)


def _role(caller: Caller) -> Any | None:
    """Return the role of a caller; None if it has none, or one that IAM does not have. Then it is not restricted."""
    return next((role for role in list(_roles().values()) if role.name == caller.role), None) if caller.role else None


def _message(role: Any, error: DeniedError, resource: str) -> str:
    user = f"arn:{role.partition}:sts::{role.account_id}:assumed-role/{role.name}/embedded-cloud"
    return f"User: {user} is not authorized to perform: {error.call.action} on resource: {resource} {error.reason}"


def _authorize(role: Any, call: Call) -> None:
    """Check a call, and remember what allows it.

    Raises:
        DeniedError: the role does not allow the call.
        UnsupportedPolicyError: the decision depends on a condition.
    """
    host = running()
    documents = list(role.policies.values())
    known = host.permissions.get(role.name)
    if known is None or known[0] != documents:
        host.permissions[role.name] = known = documents, _permissions(role)
    host.used_grants.add((role.name, known[1].check(call)))


def write_used_grants(path: Path) -> None:
    """Write what the calls until now used, one JSON array a line: see :func:`grants`."""
    names = _logical_names()
    lines = [json.dumps(_described(role, grant, names)) for role, grant in running().used_grants]
    path.write_text("".join(f"{line}\n" for line in sorted(lines)))


def grants() -> list[list[str]]:
    """Return what the roles of all stacks allow: role, action and resource, with logical ids for generated names."""
    names = _logical_names()
    return [
        _described(role.name, grant, names)
        for role in list(_roles().values())
        if role.name in names
        for grant in _permissions(role).grants
    ]


def role_name(logical: str) -> str:
    """Return the name of a role by its logical id, after those of its nested stacks."""
    return {path: name for name, path in _logical_names().items()}[logical]


def _roles() -> dict[str, Any]:
    roles: dict[str, Any] = iam_backends[DEFAULT_ACCOUNT_ID][get_partition(running().sdk["AWS_REGION"])].roles
    return roles


def _permissions(role: Any) -> Permissions:
    documents = role.policies.values()
    return Permissions([json.loads(document) if isinstance(document, str) else document for document in documents])


def _described(role: str, grant: Grant, names: dict[str, str]) -> list[str]:
    resource = grant.resource
    for name in sorted(names, key=len, reverse=True):
        resource = resource.replace(name, f"${{{names[name]}}}")
    return [names.get(role, role), grant.action, resource]


def _logical_names() -> dict[str, str]:
    """Return the logical id of each generated name, after those of its nested stacks."""
    stacks = cloudformation_backends[DEFAULT_ACCOUNT_ID][running().sdk["AWS_REGION"]].stacks.values()
    return dict(pair for stack in list(stacks) if stack.parent_id is None for pair in names_in(stack))


def names_in(stack: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the generated name and the logical id of each resource of a stack that has been created.

    ``stack.stack_resources`` would create the others, a second time if the stack is being created.
    """
    for logical_id, resource in list(stack.resource_map._parsed_resources.items()):
        name = re.split("[:/]", str(getattr(resource, "physical_resource_id", "")))[-1]
        logical = prefix + logical_id
        if _RANDOM.fullmatch(name):
            yield name, logical
        if isinstance(resource, Stack):
            yield from names_in(resource, f"{logical}/")


@around(Role, "update_from_cloudformation_json")
def update_inline_policies(original: Any, cls: Any, **given: Any) -> Any:
    """AWS updates the policies of a role with its stack; moto keeps the first ones."""
    role = original(cls, **given)
    attached = iam_backends[role.account_id][role.partition].inline_policies.values()
    kept = {policy.policy_name for policy in attached if role.name in (policy.role_names or ())}
    role.policies = {name: document for name, document in role.policies.items() if name in kept}
    for policy in given["cloudformation_json"]["Properties"].get("Policies", []):
        role.put_policy(policy["PolicyName"], policy["PolicyDocument"])
    return role
