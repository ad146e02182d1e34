#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# build-module.sh SOURCE DIRECTORY RELEASE [KBUILD-VARIABLE...]
#
# Builds the module in SOURCE for a kernel release that is installed, below KERNEL_ROOT if that is set, in a copy of its
# sources, so that the source directory stays clean and kernels do not share objects. Nothing is copied that was built in
# place (.gitignore). Builds again only what changed. With C=2 (sparse) a warning fails.
set -euo pipefail

source=$1 directory=$2 release=$3
shift 3
headers=${KERNEL_ROOT:-}/lib/modules/$release/build

strict=no
for variable in "$@"; do
	[[ $variable != C=2 ]] || strict=yes
done

mkdir -p "$directory"
# A file that need not be compiled again would not be checked again either.
[[ $strict = no ]] || rm -f "$directory/.sources"
# A source that went away must not linger in the copy.
listing=$(cd "$source" && find . -type f ! -name '*.o' ! -name '*.ko' ! -name '*.mod' ! -name '*.mod.c' ! -name '.*.cmd' \
	! -name '.tmp_*' ! -name Module.symvers ! -name modules.order ! -name features.h | sort)
if [[ ! -f $directory/.sources || $(<"$directory/.sources") != "$listing" ]]; then
	find "$directory" -mindepth 1 -delete
	echo "$listing" >"$directory/.sources"
fi
(cd "$source" && xargs -d '\n' cp -a --update --parents -t "$directory" <<<"$listing")

report=$directory/.report
# without the flags of a make that calls us: its job server does not reach here
if ! MAKEFLAGS='' make -s -j"$(nproc)" -C "$headers" M="$directory" "$@" modules >"$report" 2>&1; then
	cat "$report" >&2
	echo "The module does not build for $release" >&2
	exit 1
fi
grep -vE 'Skipping BTF generation|^warning: the compiler differs|^  (The kernel was built by|You are using):' \
	"$report" >&2 || true
if [[ $strict = yes ]] && grep -qE '(warning|error):' "$report"; then
	echo "Warnings in the module built for $release" >&2
	exit 1
fi
