"""The part of the stack that LocalStack deploys: buckets, queues, topics, rules, state machines and their roles."""

import re
from typing import Any, Final

TYPES: Final = {
    "AWS::Events::Rule",
    "AWS::IAM::Role",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
    "AWS::SecretsManager::Secret",
    "AWS::StepFunctions::StateMachine",
}
"""For functions LocalStack needs Docker, for tables a Java program that it downloads. It lacks the other types."""

_ALIAS: Final = "Aliaslive"
_NAME: Final = re.compile(r"\$\{(\w+)(\.[\w.]+)?\}")


def part(template: dict[str, Any]) -> dict[str, Any]:
    """Return a CloudFormation template without resources of other types, and without outputs.

    References to these become ARNs of functions that do not exist; those to the alias of a state machine, the machine.
    """
    resources = template["Resources"]
    kept = {name for name, resource in resources.items() if resource["Type"] in TYPES}

    def stand_in(name: str) -> Any:
        machine = name.removesuffix(_ALIAS)
        return {"Ref": machine} if machine in kept else f"arn:aws:lambda:eu-west-1:000000000000:function:{name}"

    def is_missing(name: str) -> bool:
        return name in resources and name not in kept

    def without(value: Any) -> Any:
        match value:
            case {"Ref": str(name)} if is_missing(name):
                return stand_in(name)
            case {"Fn::GetAtt": [str(name), *_]} if is_missing(name):
                return stand_in(name)
            case {"Fn::Sub": str(text)}:
                return {
                    "Fn::Sub": _NAME.sub(lambda found: stand_in(found[1]) if is_missing(found[1]) else found[0], text)
                }
            case dict():
                return {name: without(one) for name, one in value.items()}
            case list():
                return [without(one) for one in value if not (isinstance(one, str) and is_missing(one))]
        return value

    without_outputs = {name: value for name, value in template.items() if name != "Outputs"}
    return {**without_outputs, "Resources": {name: without(resources[name]) for name in resources if name in kept}}
