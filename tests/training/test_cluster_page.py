"""Files that docs/cluster.md shows for other programs have the form that they expect, and name existing commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from gpt2lab.cli.main import cli

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    """Return the YAML documents of the page by their kind."""
    every = [document for block in blocks("yaml") for document in yaml.safe_load_all(block)]
    return {document.get("kind", "SkyPilot"): document for document in every}


def test_the_pods_of_the_job_find_each_other(documents):
    service, job = documents["Service"], documents["Job"]
    pod = job["spec"]["template"]["spec"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    command = pod["containers"][0]["command"]
    assert f"--nnodes={job['spec']['completions']}" in command
    assert f"--rdzv-endpoint={job['metadata']['name']}-0.{service['metadata']['name']}:29500" in command


def test_what_the_job_mounts_is_there(documents):
    pod = documents["Job"]["spec"]["template"]["spec"]
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_skypilot_task_is_one(documents):
    task = documents["SkyPilot"]
    assert task.keys() == {"name", "num_nodes", "resources", "volumes", "setup", "run"}


def scripts(documents: dict[str, Any]) -> list[str]:
    command = documents["Job"]["spec"]["template"]["spec"]["containers"][0]["command"]
    return [*blocks("bash"), documents["SkyPilot"]["run"], " ".join(command)]


def test_shell_scripts_parse(documents):
    for script in scripts(documents):
        subprocess.run(["bash", "-n", "-c", script], check=True)


def test_every_flag_of_ours_is_known(documents):
    text = CliRunner().invoke(cli, ["train", "--help"]).output
    for script in scripts(documents):
        ours = re.sub(r"\\\n", " ", script).partition("gpt2lab train")[2].partition("\n")[0]
        for flag in re.findall(r"--(\w+)", ours):
            assert f"--{flag}" in text
