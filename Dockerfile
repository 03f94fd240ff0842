# The image of the operator (`python -m agentrun.adapters.operator`) and of the runner in step pods (`python -m agentrun.runner`).
# BASE: any image with Python 3.11 or later and its venv module as `python3`. The PIP_ arguments are pip's own settings.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# -- what it depends on, by the hashes of the lock: this changes seldom --------------------------------------------------
FROM ${BASE} AS locked
ARG PIP_INDEX_URL
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /build
COPY requirements.lock ./
# pip lives in an environment of its own: the one that is shipped has none.
RUN python3 -m venv tools \
 && python3 -m venv --without-pip /opt/agentrun \
 && tools/bin/pip --python /opt/agentrun/bin/python install \
      --no-cache-dir --disable-pip-version-check --no-compile --require-hashes -r requirements.lock

# Compiled here, since the file system is read-only later and a step's start would pay for it each time.
# The AWS SDK describes every service there is; a store needs s3, and sts for a ServiceAccount's identity. The Kubernetes
# client has all its models twice; a pod reads a kubeconfig rarely if ever, so what reads one stays, but not compiled.
FROM locked AS dependencies
RUN tools/bin/pip --python /opt/agentrun/bin/python uninstall --quiet --yes \
      editables hatchling packaging pathspec pluggy tomlkit trove-classifiers \
 && cd /opt/agentrun/lib/python3*/site-packages \
 && find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts -exec rm -r {} + \
 && rm -r kubernetes/aio \
 && /opt/agentrun/bin/python -m compileall -q -j 0 -x kubernetes/client --invalidation-mode unchecked-hash .

# -- the package: this changes often, and is the last and smallest layer -------------------------------------------------
FROM locked AS package
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
RUN tools/bin/pip --python /opt/agentrun/bin/python install \
      --no-cache-dir --disable-pip-version-check --no-compile --no-build-isolation --no-deps --prefix /package . \
 && /opt/agentrun/bin/python -m compileall -q --invalidation-mode unchecked-hash /package/lib

FROM ${BASE}
# The interpreter's own pip is of no use to anybody in here but an intruder.
RUN rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/bin/pip* /usr/share/python-wheels
COPY --from=dependencies /opt/agentrun /opt/agentrun
COPY --from=package /package /opt/agentrun
ENV PATH=/opt/agentrun/bin:/usr/local/bin:/usr/bin:/bin
# A number: Kubernetes can't tell that a name is not root's.
USER 65532:65532
WORKDIR /
