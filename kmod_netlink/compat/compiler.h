/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_COMPAT_COMPILER_H
#define _IPTTRACE_COMPAT_COMPILER_H

#include <linux/compiler.h>

/* Only checkers read it. Headers before v6.6 (dd06e72e68bc), and stable ones of 6.1, lack it. */
#ifndef __counted_by
#define __counted_by(member)
#endif

#endif /* _IPTTRACE_COMPAT_COMPILER_H */
