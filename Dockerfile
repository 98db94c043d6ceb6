# The serving image: the server, its embedded model, no torch, no compiler.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY client client
RUN python -m venv /opt/regard \
    && /opt/regard/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt '.[server,trace]'

FROM ${BASE} AS server
RUN useradd --system --uid 10001 --no-create-home regard
COPY --from=build /opt/regard /opt/regard
WORKDIR /app
COPY server server
ENV PATH=/opt/regard/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REGARD_LISTEN=0.0.0.0:8001 \
    REGARD_METRICS=0.0.0.0:9090
USER 10001
EXPOSE 8001 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["python", "-m", "server.healthcheck"]
ENTRYPOINT ["python", "-m", "server"]
