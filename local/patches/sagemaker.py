"""SageMaker: moto's endpoints answer with canned text."""

import json
from typing import Any

from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

from local.patches.around import around
from local.patches.host import running


@around(SageMakerRuntimeResponse, "invoke_endpoint")
def ask_the_container(_original: Any, self: Any) -> Any:
    """AWS hands the body to the endpoint's container and wraps what is not a 2xx into a ModelError."""
    name = self.path.split("/")[2]  # /endpoints/NAME/invocations
    endpoint = running().endpoints.get(name)
    if endpoint is None:
        return _error(
            400, "ValidationError", {"Message": f"Endpoint {name} of account {self.current_account} not found."}
        )
    headers = {key: self.headers[key] for key in ("Content-Type", "Accept") if key in self.headers}
    answer = endpoint.invoke(self.body if isinstance(self.body, bytes) else self.body.encode(), headers)
    if 200 <= answer.status < 300:
        variant = {"x-Amzn-Invoked-Production-Variant": "AllTraffic", "Content-Type": answer.content_type}
        return answer.status, variant, answer.body
    side, message = "client" if 400 <= answer.status < 500 else "server", answer.body.decode(errors="replace")
    facts = {
        "Message": f'Received {side} error ({answer.status}) from primary with message "{message}".',
        "OriginalStatusCode": answer.status,
        "OriginalMessage": message,
    }
    return _error(424, "ModelError", facts)


def _error(status: int, code: str, facts: dict[str, Any]) -> Any:
    headers = {"status": status, "Content-Type": "application/json", "x-amzn-errortype": code}
    return status, headers, json.dumps(facts)
