"""Step Functions: validation of definitions."""

from typing import Any

from moto.core.responses import ActionResult
from moto.stepfunctions.parser.api import InvalidDefinition
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.responses import StepFunctionResponse

from embedded_cloud.definition_check import Diagnostic, check
from embedded_cloud.moto_patches.around import around

MAX_DIAGNOSTICS = 100


def validate_state_machine_definition(self: Any) -> ActionResult:
    """AWS returns the problems of a definition; moto does not implement the call."""
    definition, limit = self._get_param("definition"), self._get_param("maxResults") or MAX_DIAGNOSTICS
    found = _problems(definition, express=self._get_param("type") == "EXPRESS")
    shown = found if self._get_param("severity") == "WARNING" else [item for item in found if item.severity == "ERROR"]
    fields = ("severity", "code", "message", "location")
    return ActionResult(
        {
            "result": "FAIL" if any(item.severity == "ERROR" for item in found) else "OK",
            "diagnostics": [{name: getattr(item, name) for name in fields} for item in shown[:limit]],
            "truncated": len(shown) > limit,
        }
    )


def _problems(definition: str, *, express: bool) -> list[Diagnostic]:
    found = check(definition, express=express)
    if any(item.severity == "ERROR" for item in found):
        return found
    try:
        AmazonStateLanguageParser.parse(definition)
    except Exception as error:
        message = str(error).removeprefix("ASLParserException ")
        return [Diagnostic("SCHEMA_VALIDATION_FAILED", message), *found]
    return found


StepFunctionResponse.validate_state_machine_definition = validate_state_machine_definition


@around(StepFunctionsParserBackend, "_validate_definition")
def reject_missing_states(original: Any, definition: str) -> None:
    """AWS rejects a definition with transitions to missing states, or without end; moto accepts it."""
    for item in check(definition):
        if item.severity == "ERROR":
            at = f" at {item.location}" if item.location else ""
            raise InvalidDefinition(f"Invalid State Machine Definition: '{item.code}: {item.message}{at}'")
    original(definition)
