"""A SageMaker container that echoes JSON, reverses bytes, returns a requested status and completes task tokens."""

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

import boto3


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(200 if self.path == "/ping" else 404, {})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Type"] == "application/octet-stream":
            return self._send(200, "application/octet-stream", sent[::-1])
        body = json.loads(sent)
        if "token" in body:
            self._answer_token(body["token"], body["job"])
        types = [self.headers["Content-Type"], self.headers["Accept"]]
        self._answer(body.get("status", 200), {"got": body, "greeting": os.environ["GREETING"], "types": types})

    def _answer_token(self, token: str, job: dict[str, str]) -> None:
        machine = boto3.client("stepfunctions")
        if "error" in job:
            machine.send_task_failure(taskToken=token, error=job["error"], cause="it was asked for")
        else:
            machine.send_task_success(taskToken=token, output=json.dumps({"done": job}))

    def _answer(self, status: int, body: object) -> None:
        self._send(status, "application/json", json.dumps(body).encode())

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
