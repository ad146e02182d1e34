#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs one job in the guest and reports its exit status to the host in a file, beside the token that the host
# chose: only a guest that got here can write it.
run_dir=$1

report() {
	printf '%s %s %s\n' "$JOB_TOKEN" "$1" "$2" >"$run_dir/status.new"
	mv "$run_dir/status.new" "$run_dir/status"
	sync "$run_dir/status"
}

exec 2>&1 </dev/null
# shellcheck source=guest/prepare.sh
if ! . "$(dirname "$0")/prepare.sh" "$run_dir"; then
	report setup 1
	exit 1
fi
# shellcheck source=/dev/null # written when the guest starts
(. "$run_dir/job.sh")
status=$?
# What was compiled here the next guest need not compile; the guest's own copy ends with it.
[[ ! -d $IPTTCTL_CACHE ]] || cp -r "$IPTTCTL_CACHE" "$run_dir/compiled"
report command $status
