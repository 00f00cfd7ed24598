# syntax=docker/dockerfile:1.10
# One image for every role: `saga serve <role>`, `saga migrate`, `saga healthcheck`.

FROM rust:1.95.0-bookworm AS build
# The image's own compiler, without the components that rust-toolchain.toml wants for the edit loop.
ENV RUSTUP_TOOLCHAIN=1.95.0
# For librdkafka and aws-lc.
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# What was fetched and what was built stay with the builder, not with the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --release -p saga && cp target/release/saga /usr/local/bin/saga

FROM debian:12.12-slim
RUN groupadd --system --gid 10001 saga && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /data saga \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /usr/local/bin/saga /usr/local/bin/saga
# Whom the image trusts: for a collector of traces that is reached over TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 10001:10001
WORKDIR /data
ENV SAGA_DATA=/data \
    SAGA_LISTEN=0.0.0.0:8000 \
    SAGA_INTERNAL_LISTEN=0.0.0.0:9001 \
    SAGA_ADMIN_LISTEN=0.0.0.0:9002
EXPOSE 8000 9001 9002
ENTRYPOINT ["saga"]
CMD ["up"]
