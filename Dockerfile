# The service in a container: docker compose up, or docker build --tag deepregions .
# Everything that is written goes to /data and /tmp, so the root can be read-only.
ARG PYTHON=python:3.13-slim-trixie

FROM ${PYTHON} AS built
# Where to get torch, PyPI by default. PyTorch's own index has it without CUDA, at a tenth of the size:
# docker build --build-arg TORCH_INDEX=URL ., with the URL for CPUs that pytorch.org shows.
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/deepregions
RUN /opt/deepregions/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision
COPY pyproject.toml README.md LICENSE /src/
COPY checkpoints /src/checkpoints
COPY configs /src/configs
COPY deepregions /src/deepregions
RUN /opt/deepregions/bin/pip install "/src[serve,heif,c2pa]"
# The face finder's file, checked by its digest: nothing is fetched once the service runs.
ENV DEEPREGIONS_CACHE=/opt/deepregions/cache
RUN /opt/deepregions/bin/python -c "from deepregions.assets import fetch; from deepregions.faces.finders import YUNET; fetch(YUNET)"

FROM ${PYTHON}
# OpenCV's wheel asks for these two.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0t64 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --home-dir /data --no-create-home --shell /usr/sbin/nologin deepregions \
    && install --directory --owner=deepregions --group=deepregions --mode=0700 /data
COPY --from=built /opt/deepregions /opt/deepregions
ENV PATH=/opt/deepregions/bin:$PATH \
    HOME=/data \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    DEEPREGIONS_CACHE=/opt/deepregions/cache \
    DEEPREGIONS_OFFLINE=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["deepregions"]
CMD ["serve", "--host", "0.0.0.0", "--data", "/data", "--workers", "2"]
