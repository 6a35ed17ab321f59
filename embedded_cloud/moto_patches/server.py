"""The moto server: faster routing."""

import functools
import threading
from typing import Any

from moto import backends
from moto.core import responses
from moto.core.routing import ServiceOperationRouter
from moto.core.utils import get_service_model
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from embedded_cloud.moto_patches.around import around

# moto scans its folders and all URL patterns for every request, under a lock. The result never changes.
backends.list_of_moto_modules = functools.cache(lambda find=backends.list_of_moto_modules: list(find()))
DomainDispatcherApplication.get_backend_for_host = functools.lru_cache(DomainDispatcherApplication.get_backend_for_host)

_loading = threading.RLock()


def service_model(service: str) -> Any:
    """Return botocore's model of a service. moto's cache lets every thread that comes early read the file again."""
    with _loading:
        return get_service_model(service)


@around(responses, "get_service_router")
def load_a_model_once(original: Any, service: str) -> Any:
    """Many first requests arrive at once; moto loads the model of the service for each of them."""
    with _loading:
        return original(service)


@around(ServiceOperationRouter, "_get_router")
def compile_routes_once(original: Any, self: Any, protocol: str) -> Any:
    """Many first requests arrive at once; moto compiles the routes of the service for each of them."""
    with _loading:
        return original(self, protocol)
