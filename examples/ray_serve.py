"""GPT-2 behind Ray Serve: the API of ``gpt2lab serve``, its replicas on as many machines as the cluster has.

    pip install 'gpt2lab[serve,ray-serve]'
    serve run examples.ray_serve:app model=124M threads=4 replicas=2
    curl localhost:8000/v1/completions -d '{"prompt": "Once upon a time"}' -H 'Content-Type: application/json'

Each replica has the model to itself, runs what it is asked for together, and takes ``threads`` CPUs of the cluster. Ray
Serve gives a request to the replica with the least to do, restarts replicas that die, and streams.
"""

from __future__ import annotations

import sys
from typing import Any

from ray import serve


def app(arguments: dict[str, str]) -> serve.Application:
    """Return the application to deploy; ``arguments`` are the words with = on the command line of ``serve run``."""
    model = arguments.get("model", "tales")
    threads = int(arguments.get("threads", 1))

    def build() -> Any:
        """The ASGI application of one replica, made there."""
        from gpt2lab import load
        from gpt2lab.serving.app import make_app
        from gpt2lab.serving.models import name_of
        from gpt2lab.serving.server import SWITCH_SECONDS
        from gpt2lab.serving.service import Service
        from gpt2lab.serving.settings import Settings, keys_in_environment

        sys.setswitchinterval(SWITCH_SECONDS)  # the engine's thread and the event loop take turns
        settings = Settings(host="0.0.0.0", api_keys=keys_in_environment())  # Ray's proxy listens, under any name
        return make_app(Service([(name_of(model), load(model, threads=threads))], settings))

    deployment = serve.deployment(
        serve.ingress(build)(),
        name="completions",
        num_replicas=int(arguments.get("replicas", 1)),
        ray_actor_options={"num_cpus": threads},
        max_ongoing_requests=256,  # the replica batches and queues by itself; Ray Serve's default would be 5
    )
    return deployment.bind()
