# A server of the playground and of OpenAI's API: a small image, a user without rights, nothing written but to /models.
#
#   docker build --tag gpt2lab .
#   docker run --read-only --tmpfs /tmp --volume models:/models --publish 8000:8000 --env GPT2LAB_API_KEYS=… gpt2lab
#
# Other commands take the place of the last line: docker run … gpt2lab generate "Once upon a time"
FROM python:3.13-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN python -m venv /opt/gpt2lab && /opt/gpt2lab/bin/pip install --no-cache-dir -c /source/constraints.txt "/source[serve]"

FROM python:3.13-slim
COPY --from=build /opt/gpt2lab /opt/gpt2lab
RUN useradd --system --uid 10001 --home-dir /models --create-home gpt2lab
USER gpt2lab
ENV PATH=/opt/gpt2lab/bin:/usr/local/bin:/usr/bin:/bin GPT2LAB_CACHE=/models/cache HF_HOME=/models/huggingface
WORKDIR /models
VOLUME /models
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["gpt2lab"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
