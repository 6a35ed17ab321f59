"""Lambda entry point of the HTTP API."""

from functions.api.config import ApiConfig
from functions.api.resolver import create_handler
from functions.api.services import Services

handler = create_handler(Services.connect(ApiConfig()))
