"""Print the API's OpenAPI document: ``python -m functions.api``."""

import json

from functions.api.application import document

if __name__ == "__main__":
    print(json.dumps(document(), indent=2))
