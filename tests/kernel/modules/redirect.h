/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Redirects a function of the kernel for as long as a module of the tests is loaded. The handler is
 * the module's own.
 */
#ifndef _IPTTRACE_TEST_REDIRECT_H
#define _IPTTRACE_TEST_REDIRECT_H

#include <linux/ftrace.h>
#include <linux/string.h>

/* The name until v6.2 (0ef86097f127). */
#ifdef ftrace_instruction_pointer_set
#define ftrace_regs_set_instruction_pointer ftrace_instruction_pointer_set
#endif

static inline void redirect_end(struct ftrace_ops *ops)
{
	unregister_ftrace_function(ops);
	ftrace_free_filter(ops);
}

static inline int redirect_begin(struct ftrace_ops *ops, const char *function)
{
	int err = ftrace_set_filter(ops, (unsigned char *)function,
				    strlen(function), 1);

	if (!err)
		err = register_ftrace_function(ops);
	if (err)
		ftrace_free_filter(ops);
	return err;
}

#endif /* _IPTTRACE_TEST_REDIRECT_H */
