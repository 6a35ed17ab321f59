"""Print the API's OpenAPI document: ``python -m functions.api``."""

import json

from functions.api.resolver import openapi_document

if __name__ == "__main__":
    print(json.dumps(openapi_document(), indent=2))
