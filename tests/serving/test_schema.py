"""schemathesis sends what the OpenAPI document allows, and much that it does not: no answer is 5xx."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import needs

needs.check("schemathesis")


@pytest.mark.slow
def test_no_request_makes_the_server_fail(api, tmp_path):
    program = Path(sys.executable).parent / "schemathesis"
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    # one worker: Python 3.11 may raise SystemError when two threads parse sources at the same time
    command = [program, "run", f"{api.url}/openapi.json", "--checks", checks, "--max-examples", "60", "--workers", "1"]
    run = subprocess.run(
        [
            *map(str, command),
            "--request-timeout",
            "60",
            "--seed",
            "1",
            "--no-color",
        ],  # 10 is too short on a busy machine
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=800,
        env={**os.environ, "SCHEMATHESIS_HOOKS": ""},
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert api.complete(prompt="x", max_tokens=1).status_code == 200
