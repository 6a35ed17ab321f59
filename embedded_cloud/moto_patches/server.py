"""The moto server: faster routing."""

import functools

from moto import backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

# moto scans its folders and all URL patterns for every request, under a lock. The result never changes.
backends.list_of_moto_modules = functools.cache(lambda find=backends.list_of_moto_modules: list(find()))
DomainDispatcherApplication.get_backend_for_host = functools.lru_cache(DomainDispatcherApplication.get_backend_for_host)
