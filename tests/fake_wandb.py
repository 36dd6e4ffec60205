"""A W&B server on this machine, as far as wandb 0.31 needs one to take a run: it keeps what it is sent."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0" * 40


@dataclass
class Received:
    """One run as the server knows it."""

    config: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)


class FakeWandb:
    """Answers every request with ``status`` where it is not 200, and none once ``silent`` is set. ``environment`` leads
    wandb here."""

    def __init__(self, status: int = 200):
        self.status, self.silent, self.over = status, threading.Event(), threading.Event()
        self.runs: dict[str, Received] = {}
        self.environment: dict[str, str] = {}

    def run(self, name: str) -> Received:
        return self.runs.setdefault(name, Received())

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        match = re.search(r"(?:query|mutation)\s+(\w+)", query)
        operation = match.group(1) if match else ""
        if operation == "UpsertBucket":
            run = self.run(variables["name"])
            run.variables |= {key: value for key, value in variables.items() if value is not None}
            if variables.get("config"):
                sent = json.loads(variables["config"])
                run.config |= {key: item["value"] for key, item in sent.items() if key != "_wandb"}
            entity = {"id": "entity", "name": "somebody"}
            project = {"id": "project", "name": variables.get("project") or "streamllm", "entity": entity}
            bucket = {"id": "bucket", "name": variables["name"], "displayName": variables.get("displayName")}
            bucket |= {"project": project, "historyLineCount": 0, "config": "{}"}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateRunFiles":
            self.run(variables["run"]).files |= set(variables["files"])
            files = [{"name": name, "uploadUrl": f"/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":  # committed: it asks for no upload
            artifact = {"id": "artifact", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        if operation == "ArtifactType":
            return {"project": {"artifact": None}}
        return {"viewer": {"id": "user", "username": "somebody", "entity": "somebody", "flags": "{}"}}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        run = self.run(name)
        for file, content in (sent.get("files") or {}).items():
            if "history" in file:
                run.history += map(json.loads, content["content"])
            if "summary" in file:
                run.summary = json.loads(content["content"][-1])


@contextmanager
def serving(status: int = 200) -> Iterator[FakeWandb]:
    fake = FakeWandb(status)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if fake.silent.is_set():
                fake.over.wait()
                return
            content: dict[str, Any] = {}
            if fake.status == 200 and self.path == "/graphql":
                asked = json.loads(body)
                content = {"data": fake.graphql(asked["query"], asked.get("variables") or {})}
            elif fake.status == 200 and self.path.endswith("/file_stream"):
                fake.stream(self.path.split("/")[-2], json.loads(body))
            encoded = json.dumps(content).encode()
            self.send_response(fake.status)
            self.send_header("content-length", str(len(encoded)))
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.environment = {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_address[1]}", "WANDB_API_KEY": KEY}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield fake
    finally:
        fake.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
