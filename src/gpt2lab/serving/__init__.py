"""Models over HTTP, in the shape of OpenAI's completions.

:mod:`~gpt2lab.serving.worker` is the thread that owns a model's scheduler, :mod:`~gpt2lab.serving.completions` what a
request becomes on the way there and back, :mod:`~gpt2lab.serving.app` the routes, :mod:`~gpt2lab.serving.server` the
process. Needs the extra ``gpt2lab[serve]``.
"""
