"""The moto server: faster routing, and an error for calls that moto does not implement."""

import functools
import threading
from typing import Any

from moto import backends
from moto.core import responses
from moto.core.common_models import BaseModel
from moto.core.errors import COMMON_ERROR_CODES
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.core.routing import ServiceOperationRouter
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.s3.models import FakeKey, FakeMultipart

from embedded_cloud.moto_patches.around import around

# moto scans its folders and all URL patterns for every request, under a lock. The result never changes.
backends.list_of_moto_modules = functools.cache(lambda find=backends.list_of_moto_modules: list(find()))
DomainDispatcherApplication.get_backend_for_host = functools.lru_cache(DomainDispatcherApplication.get_backend_for_host)

one_at_a_time = threading.RLock()
"""Held while a service's model is loaded. A cache alone lets every thread that comes early read the file again."""


@around(responses, "get_service_router")
def load_a_model_once(original: Any, service: str) -> Any:
    """Many first requests arrive at once; moto loads the model of the service for each of them."""
    with one_at_a_time:
        return original(service)


@around(ServiceOperationRouter, "_get_router")
def compile_routes_once(original: Any, self: Any, protocol: str) -> Any:
    """Many first requests arrive at once; moto compiles the routes of the service for each of them."""
    with one_at_a_time:
        return original(self, protocol)


@around(BaseModel, "__new__")
def forget_deleted_objects(original: Any, cls: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS deletes what is deleted; moto keeps each instance of each model. Only S3 uses them, to close files."""
    return original(cls, *args, **kwargs) if issubclass(cls, FakeKey | FakeMultipart) else object.__new__(cls)


class MissingCallError(ServiceException):  # type: ignore[misc]
    """A call that moto does not implement. moto's own classes must have the module of a service."""

    code = "NotImplemented"


COMMON_ERROR_CODES.append(MissingCallError.code)  # moto warns of codes that the service's model does not define


@around(BaseResponse, "call_action")
def reject_missing_calls(original: Any, self: Any) -> Any:
    """AWS implements all calls; moto ends with a traceback and a page in HTML if it lacks one."""
    try:
        return original(self)
    except NotImplementedError:
        message = f"The embedded cloud does not implement {self._get_action()} of {self.service_name}."
        _status, headers, body = self.serialized(ActionResult(MissingCallError(message)))
        return 501, {**headers, "status": 501}, body
