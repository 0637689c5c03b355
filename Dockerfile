# A Sallyport without Cloudflare, on one machine; docs/operations.md, "Without Cloudflare". State is in /state: keep that volume.
FROM node:24-bookworm-slim
# What the runtime checks certificates of an external registry by.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm install --no-save --include=dev --no-audit --no-fund
COPY . .
RUN mkdir /state && chown node:node /state && chown -R node:node /app
USER node
ENV HOST=0.0.0.0 PORT=8787 STATE_DIR=/state
VOLUME /state
EXPOSE 8787
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["node", "-e", "fetch('http://127.0.0.1:8787/health').then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "scripts/serve.ts"]
