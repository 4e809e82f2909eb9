# The worker's image: what serves, and no torch. It was written without a container engine at hand, and has not been run.
# It cannot train, and cannot export the text encoder; both need the `train` extra (requirements.txt).
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app

# Before the sources: a change of code does not install anew. Wheels only, each with its hash.
COPY requirements-worker.txt ./
RUN pip install --require-hashes --only-binary :all: -r requirements-worker.txt

COPY schemas ./schemas
COPY engines ./engines
COPY streams ./streams

RUN printf '#!/bin/sh\nexec python -m streams "$@"\n' > /usr/local/bin/headrace \
    && chmod 755 /usr/local/bin/headrace \
    && python -m compileall -q schemas engines streams \
    && useradd --uid 10001 --create-home headrace \
    && mkdir /data /releases \
    && chown headrace:headrace /data /releases

USER 10001

# State is a copy of the topic state.users: a volume makes a restart fast, and losing it loses nothing.
ENV PYTHONPATH=/app \
    HEADRACE_DATA_DIR=/data \
    HEADRACE_RELEASE_STORE=/releases \
    HEADRACE_WEB__HOST=0.0.0.0
VOLUME ["/data", "/releases"]
EXPOSE 6066

HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6066/healthz', timeout=4)"]

# SIGTERM finishes what is in flight, commits and leaves; give it more than session_timeout_s before a SIGKILL.
STOPSIGNAL SIGTERM
ENTRYPOINT ["headrace"]
CMD ["worker"]
