"""Functions of the contract tests."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import boto3

calls = 0


class NoSubjectError(Exception):
    pass


def echo(event: Any, context: Any) -> dict[str, Any]:
    global calls
    calls += 1
    print("echo was called")
    return {
        "event": event,
        "calls": calls,
        "process": os.getpid(),
        "environment": dict(os.environ),
        "remaining_ms": context.get_remaining_time_in_millis(),
        "arn": context.invoked_function_arn,
        "argv": sys.argv,
    }


def greet(_event: Any, context: Any) -> dict[str, str]:
    return {"says": os.environ["GREETING"], "version": context.function_version, "arn": context.invoked_function_arn}


def fail(_event: Any, _context: Any) -> None:
    raise NoSubjectError(json.dumps({"field": "source.key"}))


def sleep(event: Any, _context: Any) -> dict[str, float]:
    started = time.time()
    time.sleep(event["seconds"])
    return {"started": started, "ended": time.time()}


def die(_event: Any, _context: Any) -> None:
    os._exit(3)


def answer(event: Any, _context: Any) -> None:
    boto3.client("stepfunctions").send_task_success(taskToken=event["token"], output='{"answered": "early"}')


assert Path(os.environ["TMPDIR"]).is_dir()
