"""Checks an OpenAPI document: that it is one, and that every example in it is of the form beside it.

    examples.py FILE

Prints {"examples": how many} and every one that is not.
"""

import json
import sys

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

DOCUMENT = "urn:document"


def absolute(value):
    """The same with references into the document as a whole."""
    if isinstance(value, dict):
        return {
            name: DOCUMENT + inner if name == "$ref" else absolute(inner) for name, inner in value.items()
        }
    return [absolute(inner) for inner in value] if isinstance(value, list) else value


def main():
    document = json.load(open(sys.argv[1]))
    validate(document)
    registry = Registry().with_resource(DOCUMENT, Resource.from_contents(document, DRAFT202012))
    checker = Draft202012Validator.FORMAT_CHECKER
    counted, wrong = 0, []

    def check(where, schema, example):
        nonlocal counted
        counted += 1
        schema = absolute(schema)
        for error in Draft202012Validator(schema, registry=registry, format_checker=checker).iter_errors(example):
            wrong.append(f"{where}: {error.message}")

    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            for parameter in operation["parameters"]:
                check(f"{where} {parameter['name']}", parameter["schema"], parameter["example"])
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for body in bodies:
                for media_type, content in body.get("content", {}).items():
                    assert content["examples"], f"{where} {media_type}"
                    for name, example in content["examples"].items():
                        if "$ref" in example:
                            example = document["components"]["examples"][example["$ref"].rsplit("/", 1)[1]]
                        check(f"{where} {media_type} {name}", content["schema"], example["value"])
    print(json.dumps({"examples": counted, "wrong": wrong}))


main()
