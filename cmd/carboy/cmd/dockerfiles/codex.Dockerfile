# Codex, as OpenAI publishes it for npm.
FROM docker.io/library/node:22-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl git openssh-client procps ripgrep \
 && rm -rf /var/lib/apt/lists/* \
 && npm install -g @openai/codex
USER node
WORKDIR /home/node
CMD ["codex"]
