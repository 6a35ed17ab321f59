"""EventBridge: the targets that moto lacks."""

import copy
import json
import re
import threading
import uuid
from typing import Any

from jsonpath_ng.parser import parse
from moto.awslambda.utils import get_backend as lambda_backend
from moto.events.models import Rule
from moto.stepfunctions.responses import get_backend as stepfunctions_backend

from local.patches.around import around

NAME = re.compile(r"<([^<>]+)>")
JSON_STRING_OR_NAME = re.compile(r'"(?:[^"\\]|\\.)*"|<[^<>]+>')


@around(Rule, "send_to_targets")
def start_machines_and_functions(original: Any, self: Any, event: Any, transform_input: bool = True) -> None:
    """AWS starts state machines and functions too, shaping the event, each target on its own; moto refuses them."""
    if self.state == "DISABLED" or not self.event_pattern.matches_event(event):
        return
    deliveries = {"states": _start_machine, "lambda": _call_function}
    others = copy.copy(self)
    others.targets = []
    for target in self.targets:
        arn = target["Arn"].split(":")
        if arn[2] in deliveries:
            delivery = (self.account_id, arn[3], target["Arn"], json.dumps(_shape(target, event)))
            threading.Thread(target=deliveries[arn[2]], args=delivery, daemon=True).start()
        else:
            others.targets.append(target)
    if others.targets:
        original(others, event, transform_input)


def _start_machine(account_id: str, region: str, arn: str, payload: str) -> None:
    stepfunctions_backend(account_id, region).start_execution(arn, str(uuid.uuid4()), payload)


def _call_function(account_id: str, region: str, arn: str, payload: str) -> None:
    lambda_backend(account_id, region).invoke(arn, None, payload, {"x-amz-invocation-type": "Event"}, {})


def _shape(target: dict[str, Any], event: Any) -> Any:
    if "Input" in target:
        return json.loads(target["Input"])
    if "InputPath" in target:
        return _at(target["InputPath"], event)
    if "InputTransformer" in target:
        paths = target["InputTransformer"].get("InputPathsMap", {})
        values = {name: _at(path, event) for name, path in paths.items()}
        return json.loads(
            JSON_STRING_OR_NAME.sub(lambda match: _fill(match[0], values), target["InputTransformer"]["InputTemplate"])
        )
    return event


def _fill(token: str, values: dict[str, Any]) -> str:
    """Inside a JSON string a name stands for the value's text, elsewhere for the value."""
    if token.startswith("<"):
        return json.dumps(values[token[1:-1]])
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return NAME.sub(lambda match: json.dumps(texts[match[1]])[1:-1], token)


def _at(path: str, event: Any) -> Any:
    found = parse(path).find(event)
    return found[0].value if found else None
