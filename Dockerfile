# The program `activity` alone; docker-compose.yml starts it once for each group, for the set-up and for simulated traffic.

FROM rust:1.89-bookworm AS build
# librdkafka and OpenSSL are built from their sources.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY schemas schemas
COPY platform platform
COPY producer producer
COPY consumers consumers
COPY operator operator
COPY viewer viewer
COPY devstack devstack
COPY activity activity
COPY benchmarks benchmarks
COPY prometheus prometheus
COPY grafana grafana
RUN cargo build --release --locked --package activity

FROM debian:bookworm-slim
# curl asks /readyz for the health check.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /nonexistent activity
COPY --from=build /src/target/release/activity /usr/local/bin/activity
USER activity
WORKDIR /tmp
EXPOSE 9400
ENTRYPOINT ["activity"]
