"""The examples: Ray Serve answers as ``gpt2lab serve`` does; manifests have the form that Kubernetes expects."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import needs
from gpt2lab.cli.serve import command as serve_command
from gpt2lab.serving.settings import KEYS_VARIABLE

EXAMPLES = Path(__file__).parents[2] / "examples"

ASK = """
import json, socket, sys, urllib.request
import ray
from ray import serve

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
quiet = {"logging_level": "ERROR", "log_to_driver": False, "include_dashboard": False}
ray.init(address="local", num_cpus=2, _node_ip_address="127.0.0.1", object_store_memory=80 << 20, **quiet)
serve.start(http_options={"host": "127.0.0.1", "port": port})
from examples.ray_serve import app
serve.run(app({"model": sys.argv[1], "replicas": "2"}))

def ask(**body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        return urllib.request.urlopen(request, timeout=120).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()

body = {"prompt": "A tale", "seed": 1, "max_tokens": 5}
print(json.dumps([ask(**body), ask(**body, stream=True), ask(prompt=3)]))
serve.shutdown()
"""


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    """Return the documents of all manifests by their kind."""
    files = sorted((EXAMPLES / "kubernetes").glob("*.yaml"))
    return {found["kind"]: found for file in files for found in yaml.safe_load_all(file.read_text(encoding="utf-8"))}


def test_the_service_finds_the_pods_of_the_deployment(manifests):
    deployment, service = manifests["Deployment"], manifests["Service"]
    assert (deployment["apiVersion"], service["apiVersion"]) == ("apps/v1", "v1")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert f"--port={port['containerPort']}" in container["command"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": port["name"]}


def test_what_the_deployment_runs_is_a_command_of_ours(manifests):
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    name, subcommand, *flags = pod["containers"][0]["command"]
    assert (name, subcommand) == ("gpt2lab", "serve")
    values = serve_command.make_context("serve", flags).params
    assert values["host"] == "0.0.0.0"
    assert values["drain_seconds"] < pod["terminationGracePeriodSeconds"]
    assert str(values["threads"]) == pod["containers"][0]["resources"]["limits"]["cpu"]
    text = (EXAMPLES / "kubernetes" / "serve.yaml").read_text(encoding="utf-8")
    assert f"--from-literal={KEYS_VARIABLE}=" in text


def test_the_ray_service_is_one(manifests):
    spec = manifests["RayService"]["spec"]
    assert manifests["RayService"]["apiVersion"] == "ray.io/v1"
    assert spec.keys() == {"serveConfigV2", "rayClusterConfig"}
    cluster = spec["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"].endswith("gpt2lab-ray:latest")
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_ray_serves_own_schema_takes_the_application(manifests):
    needs.check("ray", "aiohttp", "fastapi")
    from ray.serve import schema

    text = manifests["RayService"]["spec"]["serveConfigV2"]
    deployed = schema.ServeDeploySchema.model_validate(yaml.safe_load(text))
    (application,) = deployed.applications
    module, _, name = application.import_path.partition(":")
    assert f"def {name}(arguments" in (EXAMPLES.parent / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    (workers,) = manifests["RayService"]["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    cpus = workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    assert application.args["threads"] == cpus
    assert int(application.args["replicas"]) <= workers["replicas"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs.mark("ray", "aiohttp", "fastapi")
def test_ray_serve_gives_the_text_of_the_command(gpt2lab, ended):
    tiny = EXAMPLES.parent / "tests" / "golden" / "tiny"
    flags = [sys.executable, "-c", ASK, str(tiny)]
    told = subprocess.run(flags, capture_output=True, text=True, cwd=EXAMPLES.parent, timeout=580)
    ended(told.stderr)
    assert told.returncode == 0, told.stderr
    whole, stream, refused = json.loads(next(line for line in told.stdout.splitlines() if line.startswith('["')))
    expected = gpt2lab("generate", "A tale", "--seed", 1, "--length", 5, "--model", tiny, "--json").stdout
    assert json.loads(whole)["choices"][0]["text"] == json.loads(expected)["completion"]
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: {")]
    text = "".join(choice["text"] for event in events for choice in json.loads(event)["choices"])
    assert text == json.loads(expected)["completion"]
    assert json.loads(refused)["error"]["type"] == "invalid_request_error"
