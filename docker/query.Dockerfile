# The bare query side: the package and its four dependencies; no torch, no engine client, no model.
ARG PYTHON=3.12.12-slim-bookworm
FROM python:${PYTHON} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY steelyard ./steelyard
RUN python -m venv /opt/steelyard && /opt/steelyard/bin/pip install --no-cache-dir .

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="steelyard-query" \
      org.opencontainers.image.description="Queries to vectors by look-up: one query a line in, one JSON object a line out" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --create-home steelyard
COPY --from=build /opt/steelyard /opt/steelyard
COPY docker/encode_lines.py /opt/steelyard/encode_lines.py
ENV PATH=/opt/steelyard/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
# It reads standard input and ends with it: its exit status says what a health check would.
HEALTHCHECK NONE
ENTRYPOINT ["python", "/opt/steelyard/encode_lines.py", "/pack"]
