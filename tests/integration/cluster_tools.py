"""What clusters have and this host has not: ssh, pdsh, srun and scontrol, for two machines of this host.

They take the options that DeepSpeed and the example script give them, and run the command in the machines.
"""

from collections.abc import Sequence
from pathlib import Path

from machines import Machine

SSH = """
while [ "${1#-}" != "$1" ]; do [ "$1" = -o ] && shift; shift; done
host=$1; shift
exec sh -c "$(command_in "$host") $*"
"""
# `%n` is the number of the machine in the list.
PDSH = """
while [ "$1" != -w ]; do shift; done
hosts=$2; shift 2
number=0; code=0; running=
for host in $(echo "$hosts" | tr , ' '); do
    here=$(echo "$*" | sed "s/%n/$number/g")
    $(command_in "$host") sh -c "$here" & running="$running $!"
    number=$((number + 1))
done
for one in $running; do wait "$one" || code=$?; done
exit $code
"""
SRUN = """
while [ "${1#--}" != "$1" ]; do shift; done
number=0; code=0; running=
for host in node0 node1; do
    SLURM_NODEID=$number $(command_in "$host") env -C "$PWD" "$@" & running="$running $!"
    number=$((number + 1))
done
for one in $running; do wait "$one" || code=$?; done
exit $code
"""
SCONTROL = """
[ "$1 $2 $3" = "show hostnames node[0-1]" ] && printf 'node0\\nnode1\\n'
"""


def cluster_tools(folder: Path, pair: Sequence[Machine]) -> Path:
    """A folder for PATH."""
    folder.mkdir()
    cases = "".join(f"{machine.name}) echo {' '.join(machine.line([]))};; " for machine in pair)
    head = f'#!/bin/sh\ncommand_in() {{ case "$1" in {cases} esac; }}\n'
    for name, text in (("ssh", SSH), ("pdsh", PDSH), ("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(head + text.lstrip())
        (folder / name).chmod(0o755)
    return folder
