"""The HTTP API, behind API Gateway."""

from functions.api.application import handler as _handler_of
from functions.api.config import ApiConfig
from functions.api.services import Services

handler = _handler_of(Services.connect(ApiConfig()))
