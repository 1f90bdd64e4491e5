# mae-bench with the ordinary packages, which use a GPU where there is one.
#   docker build -t mae-bench .
#   docker run --rm --gpus all --shm-size 8g -v /data:/data -v $PWD/runs:/bench/runs mae-bench doctor
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir .
# The miniature world and released weights: mount a folder here to keep them.
ENV XDG_CACHE_HOME=/cache
WORKDIR /bench
RUN mkdir -p /cache /bench/runs && chmod 777 /cache /bench /bench/runs
ENTRYPOINT ["mae-bench"]
CMD ["--help"]
