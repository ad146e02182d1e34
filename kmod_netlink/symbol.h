/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_SYMBOL_H
#define _IPTTRACE_SYMBOL_H

unsigned long ipttrace_symbol_find(const char *name);
unsigned long ipttrace_module_symbol_find(const char *module, const char *name);

#endif /* _IPTTRACE_SYMBOL_H */
