# The service without Redis: set REDIS_URL, since a container's own disk is lost with the container, and SECRET, which
# production requires with a REDIS_URL.
# A published port is not loopback, so this image refuses to start without API keys (mount a folder with API_KEYS_FILE;
# `node dist/cli/key.js create …` creates them), unless ALLOW_ANONYMOUS=true is set.
# It writes no files, so it runs with a read-only file system (compose.yaml does).
ARG BASE_IMAGE=node:26-bookworm-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json ./
COPY scripts ./scripts
COPY src ./src
RUN npm run build

FROM ${BASE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --no-audit --no-fund

FROM ${BASE_IMAGE}
ENV NODE_ENV=production HOST=0.0.0.0
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
# The service reads its version from here.
COPY package.json ./
USER node
EXPOSE 3000
# Liveness does not use Redis: a container must not be restarted because Redis is unavailable.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT || 3000}/health/live`).then((response) => process.exit(response.ok ? 0 : 1), () => process.exit(1))"]
# Neither a shell nor npm in between: SIGTERM must reach the process that finishes the requests in flight.
CMD ["node", "dist/server.js"]
