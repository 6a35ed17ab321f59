"""The stack's secret, which all webhook signing secrets are derived from."""

from typing import Final

from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

from functions.contracts.errors import SecretUnavailableError

_CACHED_FOR_S: Final = 300


def stack_secret(secrets: SecretsProvider, arn: str) -> str:
    """Return the stack's secret. It is cached for 5 minutes; a new value takes effect after that.

    Raises:
        SecretUnavailableError: Secrets Manager does not return it.
    """
    try:
        return str(secrets.get(arn, max_age=_CACHED_FOR_S))
    except GetParameterError as error:
        raise SecretUnavailableError(
            "The webhook signing secret cannot be read",
            field="WEBHOOK_SECRET_ARN",
            value=arn,
            remedy="Check that the secret exists and that the function's role may read it.",
        ) from error
