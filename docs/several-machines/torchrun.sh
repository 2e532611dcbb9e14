#!/bin/sh
# Runs train.py on several machines under torchrun. Start it on every one of them, with the same options of train.py:
#
#   MACHINES=2 MACHINE=0 FIRST=node0 sh docs/several-machines/torchrun.sh --stage all      on node0
#   MACHINES=2 MACHINE=1 FIRST=node0 sh docs/several-machines/torchrun.sh --stage all      on node1
#
# MACHINES   how many there are
# MACHINE    number of this one, from 0
# FIRST      name or address of machine 0, as the others reach it
# PORT       a free port of machine 0 (29500)
# WAIT       seconds in which all machines have to be started (600)
# PROCESSES  on this machine (gpu: one for each GPU)
# PYTHON     interpreter (the project's .venv)
set -eu
: "${MACHINES:?how many machines}" "${MACHINE:?number of this machine, from 0}" "${FIRST:?name or address of machine 0}"
ROOT=$(cd -P "$(dirname "$0")/../.." && pwd)

echo "machine $MACHINE of $MACHINES: waiting up to ${WAIT:-600} s for the others at $FIRST:${PORT:-29500}"
# --shutdown-timeout: seconds that a process gets to end its step and save when it is asked to stop.
exec "${PYTHON:-$ROOT/.venv/bin/python}" -m torch.distributed.run \
    --nnodes "$MACHINES" --node-rank "$MACHINE" --nproc-per-node "${PROCESSES:-gpu}" \
    --master-addr "$FIRST" --master-port "${PORT:-29500}" \
    --rdzv-conf "timeout=${WAIT:-600}" --shutdown-timeout 600 \
    "$ROOT/train.py" "$@"
