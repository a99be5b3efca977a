# The whole command line with both engines' clients; models and packs are mounted, not built in.
ARG PYTHON=3.12.12-slim-bookworm
FROM python:${PYTHON} AS build
# Where torch comes from. The CPU build is a tenth of the size of the CUDA one; for GPUs:
# --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=index,opensearch,milvus
WORKDIR /src
RUN python -m venv /opt/steelyard \
    && /opt/steelyard/bin/pip install --no-cache-dir --index-url "${TORCH_INDEX}" "torch>=2.6"
COPY pyproject.toml README.md LICENSE ./
COPY steelyard ./steelyard
RUN /opt/steelyard/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="steelyard-indexer" \
      org.opencontainers.image.description="Bulk indexing and re-indexing into OpenSearch and Milvus" \
      org.opencontainers.image.licenses="Apache-2.0"
# /shards is made here so that a new volume mounted there belongs to the user.
RUN useradd --uid 10001 --create-home steelyard \
    && install -d -o 10001 -g 10001 /shards /state /cache
COPY --from=build /opt/steelyard /opt/steelyard
ENV PATH=/opt/steelyard/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/cache/huggingface \
    XDG_CACHE_HOME=/cache \
    STEELYARD_STATE=/state
VOLUME ["/shards", "/state", "/cache"]
USER 10001:10001
WORKDIR /home/steelyard
# A job, not a service: the scheduler acts on its exit status.
HEALTHCHECK NONE
ENTRYPOINT ["steelyard"]
CMD ["--help"]
