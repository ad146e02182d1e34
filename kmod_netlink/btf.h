/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The running kernel's own description of its types (BTF).
 */
#ifndef _IPTTRACE_BTF_H
#define _IPTTRACE_BTF_H

#include <linux/types.h>

/**
 * struct ipttrace_btf_part - the types of the kernel, or those that a module adds
 * @data: the description, in the format of include/uapi/linux/btf.h; NULL if there is none
 * @size: its length
 * @types: where each type begins in @data
 * @first: number of the first type
 * @count: number of types
 * @strings: their names
 * @first_string: number of the first byte of @strings
 * @strings_size: length of @strings; the last byte is 0
 */
struct ipttrace_btf_part {
	void *data;
	u32 size;
	u32 *types;
	u32 first;
	u32 count;
	const char *strings;
	u32 first_string;
	u32 strings_size;
};

/**
 * struct ipttrace_btf - the types that a module of the kernel uses
 * @kernel: those of the kernel
 * @module: those that only the module has
 *
 * Owned by whoever called ipttrace_btf_read().
 */
struct ipttrace_btf {
	struct ipttrace_btf_part kernel;
	struct ipttrace_btf_part module;
};

/**
 * struct ipttrace_btf_place - the place of a member in its struct
 * @at: first bit
 * @bits: number of bits; 0 for an array of no fixed length
 */
struct ipttrace_btf_place {
	u32 at;
	u32 bits;
};

int ipttrace_btf_read(struct ipttrace_btf *btf, const char *module);
void ipttrace_btf_free(struct ipttrace_btf *btf);
u32 ipttrace_btf_next_struct(const struct ipttrace_btf *btf,
			     const struct ipttrace_btf_part *part,
			     const char *name, u32 after);
bool ipttrace_btf_size(const struct ipttrace_btf *btf, u32 number, u32 *size);
bool ipttrace_btf_member(const struct ipttrace_btf *btf, u32 number,
			 const char *name, struct ipttrace_btf_place *place);

#endif /* _IPTTRACE_BTF_H */
