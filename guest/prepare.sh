# SPDX-License-Identifier: GPL-2.0
#
# Sourced as root in a freshly booted guest: makes it a usable environment. Takes the run's directory as $1,
# whose job.env the host wrote. Returns non-zero with a sentence on stderr when something is missing.

# shellcheck source=/dev/null # written when the guest starts
. "$1/job.env" || return 1

mount_if_absent() {
	mountpoint -q "$3" || mount -t "$1" "$2" "$3"
}

mkdir -p /run/home /run/netns
export HOME=/run/home TMPDIR=/tmp LC_ALL=C.UTF-8
# What the host has compiled of Python is there (job.env); the guest's memory takes the rest until it ends.
unset PYTHONDONTWRITEBYTECODE
export PYTHONUNBUFFERED=1
ulimit -l unlimited

mount_if_absent bpf bpf /sys/fs/bpf || return 1
mount_if_absent debugfs debugfs /sys/kernel/debug || return 1
mount_if_absent tracefs tracefs /sys/kernel/tracing || return 1
ip link set lo up || return 1
# Emulated, a kernel that checks itself takes minutes for what takes seconds elsewhere.
sysctl -q -w kernel.hung_task_timeout_secs=600 2>/dev/null || :

if [[ $JOB_LOAD_MODULE = yes ]]; then
	modprobe -a ip_tables ip6_tables || return 1
	if ! insmod "$IPTTRACE_KO"; then
		echo "guest: cannot load $IPTTRACE_KO; run: make module" >&2
		return 1
	fi
fi
