#!/bin/sh
# Make the environment NAME from its lock: `install.sh NAME`, or of some of its packages only:
# `install.sh NAME PACKAGE...`. Nothing is installed but what the lock pins, with its hash.
set -eu

name=$1
shift
lock=$FLEAD_HOME/src/requirements/$name.lock
environment=$FLEAD_HOME/envs/$name
wanted=$lock
if [ $# -gt 0 ]; then
    wanted=/tmp/wanted.txt
    for package in "$@"; do
        grep -oE "^$package==[^ ;]+" "$lock"
    done > "$wanted"
fi
/opt/uv/bin/uv venv --quiet --python python3 "$environment"
/opt/uv/bin/uv pip install --python "$environment/bin/python" --no-deps --require-hashes \
    --constraint "$lock" --requirement "$wanted"
# The code is run from where it lies, as its SQL files, jobs and suites are found beside it.
echo "$FLEAD_HOME/src" > "$(echo "$environment"/lib/python3.*/site-packages)/flead.pth"
