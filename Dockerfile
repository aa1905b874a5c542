# The program on Ray's own image, for pods of a KubeRay cluster, for `docker` in ray_cluster.yaml, or for one machine:
#
#   docker build --tag imtalker:0.1.0 .
#   docker run --rm --gpus all --shm-size 4g --volume "$PWD:/data" --workdir /data imtalker:0.1.0 \
#     run manifests/demo.parquet --model imtalker-tiny --output outputs/demo
#
# Weights are not in it: mount a model store on /models, or let `imtalker models pull` fill one.
FROM rayproject/ray:2.60.0-py311-gpu

USER root
RUN install --directory --owner=ray --group=users /models /home/ray/imtalker
USER ray
WORKDIR /home/ray/imtalker

# First what changes least and is largest.
COPY --chown=ray:users constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt torch

COPY --chown=ray:users pyproject.toml README.md LICENSE cli.py ./
COPY --chown=ray:users imtalker imtalker
COPY --chown=ray:users pipeline pipeline
COPY --chown=ray:users manifests manifests
COPY --chown=ray:users jobs jobs
RUN pip install --no-cache-dir --constraint constraints.txt .

# `video` lets the GPU's own encoder through. Telemetry of Ray is off; threads sleep soon (pipeline/machines/resources.py).
ENV IMTALKER_MODELS=/models \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    RAY_USAGE_STATS_ENABLED=0 \
    GOMP_SPINCOUNT=2000

ENTRYPOINT ["imtalker"]
CMD ["--help"]
