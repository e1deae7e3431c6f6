# The package with its commands: docker build -t lca-keras .
# `--build-arg EXTRAS=train,pipelines,runtime` for training; by default only `predict`.
#   docker run --rm -v "$PWD:/work" lca-keras predict --model saved_models/demo SONG
FROM python:3.11.14-slim-bookworm AS build
ARG EXTRAS=runtime
WORKDIR /source
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY lca_keras lca_keras
COPY pipelines pipelines
COPY tuning tuning
RUN python -m venv /opt/lca-keras \
    && /opt/lca-keras/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 10001 --create-home singer
COPY --from=build /opt/lca-keras /opt/lca-keras
ENV PATH=/opt/lca-keras/bin:$PATH
USER 10001
WORKDIR /work
ENTRYPOINT ["lca-keras"]
CMD ["--help"]
