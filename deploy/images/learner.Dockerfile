# The learner's image: what trains, torch among it; also `headrace catalog encode` and `headrace train`. From the root:
# docker build -f deploy/images/learner.Dockerfile -t headrace-learner .   Written without a container engine, and not run.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    OMP_WAIT_POLICY=PASSIVE

WORKDIR /app

# Before the sources: a change of code does not install anew. Wheels only, each with its hash.
COPY requirements-learner.txt ./
RUN pip install --require-hashes --only-binary :all: -r requirements-learner.txt

COPY schemas ./schemas
COPY engines ./engines
COPY streams ./streams
COPY finetune ./finetune

RUN printf '#!/bin/sh\nexec python -m streams "$@"\n' > /usr/local/bin/headrace \
    && chmod 755 /usr/local/bin/headrace \
    && python -m compileall -q schemas engines streams finetune \
    && useradd --uid 10001 --create-home headrace \
    && mkdir /data /releases \
    && chown headrace:headrace /data /releases

USER 10001

# The reservoir and the label join's rows: a volume makes a restart fast, and losing it loses nothing.
ENV PYTHONPATH=/app \
    HEADRACE_DATA_DIR=/data \
    HEADRACE_RELEASE_STORE=/releases \
    HEADRACE_LEARNER_WEB__HOST=0.0.0.0
VOLUME ["/data", "/releases"]
EXPOSE 6067

HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6067/healthz', timeout=4)"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["headrace"]
CMD ["learner"]
