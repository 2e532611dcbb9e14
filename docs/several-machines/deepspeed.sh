#!/bin/sh
# Runs train.py on the machines of a hostfile under DeepSpeed's launcher. Start it on the first of them:
#
#   HOSTFILE=docs/several-machines/hostfile sh docs/several-machines/deepspeed.sh --stage all
#
# It reaches the others by ssh without a password, through pdsh. Where there is no ssh, start it on every machine with
# MACHINE set to the machine's place in the hostfile, from 0.
#
# HOSTFILE  a line for each machine: name slots=GPUs
# FIRST     name or address of the first machine, as the others reach it (its first address)
# PORT      a free port of the first machine (29500)
# PYTHON    interpreter (the project's .venv), the same path on every machine
set -eu
: "${HOSTFILE:?file with a line for each machine: name slots=GPUs}"
ROOT=$(cd -P "$(dirname "$0")/../.." && pwd)
BIN=$(dirname "${PYTHON:-$ROOT/.venv/bin/python}")

PATH="$BIN:$PATH" exec "$BIN/deepspeed" --hostfile "$HOSTFILE" --master_port "${PORT:-29500}" \
    ${FIRST:+--master_addr "$FIRST"} ${MACHINE:+--no_ssh --node_rank "$MACHINE"} \
    "$ROOT/train.py" "$@"
