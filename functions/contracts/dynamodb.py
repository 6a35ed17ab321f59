"""DynamoDB attribute values from and to JSON values, without boto3."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef


def to_item(record: Mapping[str, Any]) -> "dict[str, AttributeValueTypeDef]":
    """Return a JSON object as an item. Its numbers are integers."""
    return {name: _to_attribute(value) for name, value in record.items()}


def from_item(item: "Mapping[str, AttributeValueTypeDef]") -> dict[str, Any]:
    """Return an item as a JSON object."""
    return {name: _from_attribute(value) for name, value in item.items()}


def _to_attribute(value: Any) -> "AttributeValueTypeDef":
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case None:
            return {"NULL": True}
        case list():
            return {"L": [_to_attribute(element) for element in value]}
        case dict():
            return {"M": to_item(value)}
    raise TypeError(f"No DynamoDB type for {type(value).__name__}")


def _from_attribute(attribute: "AttributeValueTypeDef") -> Any:
    match attribute:
        case {"S": value} | {"BOOL": value}:
            return value
        case {"N": number}:
            return int(number)
        case {"NULL": True}:
            return None
        case {"L": elements}:
            return [_from_attribute(element) for element in elements]
        case {"M": members}:
            return from_item(members)
    raise TypeError(f"Unsupported DynamoDB type: {', '.join(attribute)}")
