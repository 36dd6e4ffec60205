# The live service (docs/serve.md):
#
#   docker build -t streamllm .
#   docker run -p 127.0.0.1:12321:12321 -e STREAMLLM_TOKEN="$(openssl rand -hex 16)" streamllm policy=waitk k=3
FROM python:3.12-slim

COPY pyproject.toml README.md LICENSE /source/
COPY streamllm /source/streamllm
COPY conf /source/conf
RUN pip install --no-cache-dir "/source[serve]" && rm -r /source

RUN useradd --create-home streamllm
USER streamllm
WORKDIR /home/streamllm

# A container's loopback address is its own, so the service listens on all, for which it wants STREAMLLM_TOKEN.
EXPOSE 12321
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:12321/health', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["streamllm", "serve", "host=0.0.0.0", "log=-"]
CMD ["policy=waitk", "k=3"]
