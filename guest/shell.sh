#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The login shell of an interactive guest; virtme-ng starts it on the console.
here=$(dirname "$0")
run_dir=$(sed -n 's/.*\bguest_run_dir=\([^ ]*\).*/\1/p' /proc/cmdline)
# shellcheck source=guest/prepare.sh
. "$here/prepare.sh" "$run_dir" || echo "guest: not everything could be set up" >&2
echo "Linux $(uname -r). Nothing you do here reaches your machine. Leave with: exit"
PS1='[guest \W]# ' exec bash --norc -i
