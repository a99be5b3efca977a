FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY steelyard ./steelyard
RUN pip install --no-cache-dir . && useradd --create-home steelyard
COPY docker/encode_lines.py /usr/local/bin/encode_lines.py
USER steelyard
ENTRYPOINT ["python", "/usr/local/bin/encode_lines.py", "/pack"]
