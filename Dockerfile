# The service alone; Redis is elsewhere (REDIS_URL), since a container's own disk is gone with the container.
# A port that a container publishes is beyond loopback. So this image refuses to start until there are API keys (mount a
# folder with API_KEYS_FILE; `node dist/cli/key.js create …` makes them), or until somebody says ALLOW_ANONYMOUS=true.
# It writes nothing, so it runs with a read-only file system (compose.yaml does).
ARG BASE_IMAGE=node:20-bookworm-slim

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
# The version that the service tells is read from here.
COPY package.json ./
USER node
EXPOSE 3000
# Liveness asks nothing of Redis: a container must not be restarted because Redis is away.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT || 3000}/health/live`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# No shell and no npm in between: SIGTERM has to reach the process that finishes the requests in flight.
CMD ["node", "dist/server.js"]
