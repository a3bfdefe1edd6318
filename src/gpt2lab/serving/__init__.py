"""Models over HTTP, in the shape of OpenAI's completions.

:mod:`~gpt2lab.serving.worker` is the thread that owns a model's scheduler, :mod:`~gpt2lab.serving.completions`
translates requests and answers for it, :mod:`~gpt2lab.serving.app` has the routes, :mod:`~gpt2lab.serving.server` the
process. Needs the extra ``gpt2lab[serve]``.
"""
