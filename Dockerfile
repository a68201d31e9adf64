# The pinned packages and the project, for the command `nrcg` and for Snakemake:
#   docker build -t nrcg .
#   docker run --rm -v "$PWD/results:/nrcg/results" nrcg snakemake --cores 2 --configfile config/demo.yaml
# It runs on CPUs. torch's wheels bring CUDA, so that the same image sees GPUs under NVIDIA's container toolkit.
FROM docker.io/library/python:3.12-slim
WORKDIR /nrcg
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . ./
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .
CMD ["nrcg", "--help"]
