"""The secret that all signatures come from."""

from typing import Final

from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

from functions.contracts.errors import SecretUnavailableError

_KNOWN_S: Final = 300


def master_secret(secrets: SecretsProvider, arn: str) -> str:
    """Return the stack's secret. It is asked for anew after some minutes, so that another one takes effect.

    Raises:
        SecretUnavailableError: Secrets Manager does not hand it out.
    """
    try:
        return str(secrets.get(arn, max_age=_KNOWN_S))
    except GetParameterError as error:
        raise SecretUnavailableError(
            "The secret that webhooks are signed with cannot be read",
            field="WEBHOOK_SECRET_ARN",
            value=arn,
            remedy="Give the function's role access to it, and see whether it is there.",
        ) from error
