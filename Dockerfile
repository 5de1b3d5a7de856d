# syntax=docker/dockerfile:1
# The program and everything that it needs, for every node of a Ray cluster. The lock file pins all dependencies.

FROM python:3.11-slim-bookworm AS build
WORKDIR /app
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
# Dependencies come first, because they change seldom. The lock file lists all of them, hence --no-deps.
COPY requirements-runtime.lock ./
RUN python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install --require-hashes --no-deps -r requirements-runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY gpo gpo
COPY actors actors
COPY serve serve
COPY cluster cluster
COPY configs configs
COPY k8s/base/run/rayjob.yaml k8s/base/run/rayjob.yaml
COPY k8s/base/sweep/rayjob.yaml k8s/base/sweep/rayjob.yaml
RUN python -m pip --python /opt/venv/bin/python install --no-deps --no-build-isolation --editable . \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib gpo actors serve cluster

FROM python:3.11-slim-bookworm
# KubeRay's operator uses wget and bash in the commands of some containers. The embedded model needs libgomp1 (OpenMP).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y wget libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 gpo \
    && useradd --uid 10001 --gid gpo --create-home --shell /usr/sbin/nologin gpo
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# PYTHONPATH makes `python -m cluster.cli` the same program in every working directory.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    HOME=/home/gpo \
    RAY_USAGE_STATS_ENABLED=0
WORKDIR /app
# A number, because Kubernetes cannot tell whether a name is root.
USER 10001:10001
# The build fails if a library lacks a file of the operating system.
RUN HOME=/tmp/home python -m cluster.submitting.image && rm -rf /tmp/home
# For containers that run a Ray node. Kubernetes uses its own probes instead.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:52365/api/healthz', timeout=5)"]
ENTRYPOINT []
CMD ["gpo", "--help"]
