"""The server: which service a request is for."""

import functools

from moto import backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

# AWS has a host for each service; moto looks through its folders and all its URL patterns for every request, under one
# lock. Neither ever changes.
backends.list_of_moto_modules = functools.cache(lambda find=backends.list_of_moto_modules: list(find()))
DomainDispatcherApplication.get_backend_for_host = functools.lru_cache(DomainDispatcherApplication.get_backend_for_host)
