# Isthmus in a container: compiled in one stage, run in another that holds no compiler, as a user without rights.
#   docker build -t isthmus .
#   docker run --rm -p 8080:8080 -v $PWD/config:/etc/isthmus:ro isthmus
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
# The compiler stays behind in this stage; which one Debian has today does not matter.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python -m venv /opt/isthmus
COPY pyproject.toml setup.py README.md LICENSE MANIFEST.in ./
COPY gateway gateway
RUN /opt/isthmus/bin/pip install --no-cache-dir . \
    && /opt/isthmus/bin/pip uninstall -y pip setuptools

FROM python:${PYTHON}
RUN groupadd --gid 65532 isthmus \
    && useradd --uid 65532 --gid 65532 --no-create-home --shell /usr/sbin/nologin isthmus
COPY --from=build /opt/isthmus /opt/isthmus
ENV PATH=/opt/isthmus/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /
EXPOSE 8080 8443 9901
# The supervisor is process 1: it reaps, passes signals on, and drains on SIGTERM.
STOPSIGNAL SIGTERM
ENTRYPOINT ["isthmus"]
CMD ["run", "--config", "/etc/isthmus"]
