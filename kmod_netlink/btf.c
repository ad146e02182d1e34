// SPDX-License-Identifier: GPL-2.0
/*
 * The running kernel's own description of its types (BTF), read from the files that it has for it,
 * /sys/kernel/btf: their format is documented (include/uapi/linux/btf.h) and kept.
 *
 * The kernel's functions for BTF would not do. They are not exported, struct btf is private, and
 * those that search by name take the first module that has the struct: ipttrace itself, for one. A
 * descriptor of BTF would have to come with a request, and there is none when nf_tables is loaded
 * under links that wait for it. So the files are read, in a way that nobody can put others in their
 * place: through a mount of sysfs of our own, by a kernel thread, whose root directory,
 * credentials and security label are not the caller's.
 *
 * The kernel has checked what is in them. Here nothing relies on that: every place is compared with
 * the bounds, and whatever is not understood is an error.
 */
#include <linux/btf.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/workqueue.h>

#include "btf.h"

/* A kernel's own types take 4 to 8 MB. */
#define MAX_SIZE (64 << 20)
/* Types that lead from one to the next: an array of const pointers, a typedef of that, ... */
#define MAX_STEPS 32
/* Structs and unions without a name, one inside the other; sk_buff has four. */
#define MAX_NESTING 6

/* --- files --------------------------------------------------------------------------------- */

static int file_read(struct file *file, struct ipttrace_btf_part *part)
{
	loff_t size = i_size_read(file_inode(file));
	loff_t at = 0;
	ssize_t got;

	if (size <= 0 || size > MAX_SIZE)
		return -EFBIG;
	part->data = kvmalloc(size, GFP_KERNEL);
	if (!part->data)
		return -ENOMEM;
	part->size = size;
	while (at < size) {
		got = kernel_read(file, part->data + at, size - at, &at);
		if (got <= 0)
			return got ?: -EIO;
	}
	return 0;
}

static int path_read(struct vfsmount *sysfs, const char *path,
		     struct ipttrace_btf_part *part)
{
	const struct path root = { .mnt = sysfs, .dentry = sysfs->mnt_root };
	struct file *file;
	int err;

	file = file_open_root(&root, path, O_RDONLY, 0);
	if (IS_ERR(file))
		return PTR_ERR(file);
	err = file_read(file, part);
	fput(file);
	return err;
}

/* Reads the types of the kernel, and those of the module if there is a file of these. */
static int both_read(struct vfsmount *sysfs, struct ipttrace_btf *btf,
		     const char *module)
{
	char *path;
	int err;

	err = path_read(sysfs, "kernel/btf/vmlinux", &btf->kernel);
	if (err)
		return err;
	path = kasprintf(GFP_KERNEL, "kernel/btf/%s", module);
	if (!path)
		return -ENOMEM;
	err = path_read(sysfs, path, &btf->module);
	kfree(path);
	return err == -ENOENT ? 0 : err;
}

static int files_read(struct ipttrace_btf *btf, const char *module)
{
	struct file_system_type *type = get_fs_type("sysfs");
	struct vfsmount *sysfs;
	int err;

	if (!type)
		return -ENOENT;
	sysfs = kern_mount(type);
	/* what get_fs_type() took; put_filesystem() is not exported */
	module_put(type->owner);
	if (IS_ERR(sysfs))
		return PTR_ERR(sysfs);
	err = both_read(sysfs, btf, module);
	kern_unmount(sysfs);
	return err;
}

/* --- types --------------------------------------------------------------------------------- */

/* Bytes that follow a type: of one that is not known nobody can tell where the next one is. */
static int rest_size(const struct btf_type *type)
{
	unsigned int count = BTF_INFO_VLEN(type->info);

	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_INT:
		return sizeof(u32);
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return count * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return count * sizeof(struct btf_enum);
	case BTF_KIND_FUNC_PROTO:
		return count * sizeof(struct btf_param);
	case BTF_KIND_VAR:
		return sizeof(struct btf_var);
	case BTF_KIND_DATASEC:
		return count * sizeof(struct btf_var_secinfo);
	case BTF_KIND_DECL_TAG:
		return sizeof(struct btf_decl_tag);
	case BTF_KIND_ENUM64:
		return count * sizeof(struct btf_enum64);
	case BTF_KIND_PTR:
	case BTF_KIND_FWD:
	case BTF_KIND_TYPEDEF:
	case BTF_KIND_VOLATILE:
	case BTF_KIND_CONST:
	case BTF_KIND_RESTRICT:
	case BTF_KIND_FUNC:
	case BTF_KIND_FLOAT:
	case BTF_KIND_TYPE_TAG:
		return 0;
	default:
		return -EINVAL;
	}
}

/* Finds where each type begins, between two places in the data. */
static int types_find(struct ipttrace_btf_part *part, u32 at, u32 end)
{
	int rest;

	while (at < end) {
		if (end - at < sizeof(struct btf_type))
			return -EINVAL;
		rest = rest_size(part->data + at);
		if (rest < 0 || end - at - sizeof(struct btf_type) < rest)
			return -EINVAL;
		part->types[part->count++] = at;
		at += sizeof(struct btf_type) + rest;
	}
	return 0;
}

/* Tells whether a section lies in the data. */
static bool section_fits(const struct ipttrace_btf_part *part, u32 header,
			 u32 at, u32 size)
{
	return (u64)header + at + size <= part->size;
}

/* Parses the types of a part; @base is what they build upon, or NULL. */
static int part_parse(struct ipttrace_btf_part *part,
		      const struct ipttrace_btf_part *base)
{
	const struct btf_header *header = part->data;
	u32 at;

	if (part->size < sizeof(*header) || header->magic != BTF_MAGIC ||
	    header->version != BTF_VERSION)
		return -EINVAL;
	if (!section_fits(part, header->hdr_len, header->type_off,
			  header->type_len) ||
	    !section_fits(part, header->hdr_len, header->str_off,
			  header->str_len))
		return -EINVAL;
	at = header->hdr_len + header->type_off;
	part->strings = part->data + header->hdr_len + header->str_off;
	part->strings_size = header->str_len;
	if (at % sizeof(u32) || !part->strings_size ||
	    part->strings[part->strings_size - 1])
		return -EINVAL;

	/* the type of number 0 is void, and described nowhere */
	part->first = base ? base->first + base->count : 1;
	part->first_string = base ? base->strings_size : 0;
	part->types = kvmalloc_array(header->type_len / sizeof(struct btf_type),
				     sizeof(u32), GFP_KERNEL);
	if (!part->types)
		return -ENOMEM;
	return types_find(part, at, at + header->type_len);
}

/**
 * struct reading - a reading of types
 * @work: the work
 * @btf: the types to read
 * @module: name of the module
 * @err: 0 or an errno
 *
 * On the stack of ipttrace_btf_read().
 */
struct reading {
	struct work_struct work;
	struct ipttrace_btf *btf;
	const char *module;
	int err;
};

static void reading_run(struct work_struct *work)
{
	struct reading *reading = container_of(work, struct reading, work);
	struct ipttrace_btf *btf = reading->btf;
	int err;

	err = files_read(btf, reading->module);
	if (!err)
		err = part_parse(&btf->kernel, NULL);
	if (!err && btf->module.data)
		err = part_parse(&btf->module, &btf->kernel);
	reading->err = err;
}

/**
 * ipttrace_btf_read - read the types of the kernel and of a module
 * @btf: the types; ipttrace_btf_free() must follow, after an error too
 * @module: name of the module, which need not have types
 *
 * Context: process, may sleep, takes milliseconds.
 * Return: 0; -ENOENT if the kernel tells nothing of its types; -EINVAL if it is not understood;
 * -ENOMEM or an errno of sysfs.
 */
int ipttrace_btf_read(struct ipttrace_btf *btf, const char *module)
{
	struct reading reading = { .btf = btf, .module = module };

	memset(btf, 0, sizeof(*btf));
	INIT_WORK_ONSTACK(&reading.work, reading_run);
	queue_work(system_unbound_wq, &reading.work);
	flush_work(&reading.work);
	destroy_work_on_stack(&reading.work);
	return reading.err;
}

/**
 * ipttrace_btf_free - free what ipttrace_btf_read() has read
 * @btf: the types
 */
void ipttrace_btf_free(struct ipttrace_btf *btf)
{
	kvfree(btf->kernel.types);
	kvfree(btf->kernel.data);
	kvfree(btf->module.types);
	kvfree(btf->module.data);
}

/* --- looking up ---------------------------------------------------------------------------- */

/* A type by its number. NULL for void, and for a number that no type has. */
static const struct btf_type *type_get(const struct ipttrace_btf *btf,
				       u32 number)
{
	const struct ipttrace_btf_part *part = &btf->kernel;

	if (btf->module.data && number >= btf->module.first)
		part = &btf->module;
	/* without a sign: a number that is too small becomes one that is too large */
	number -= part->first;
	return number < part->count ? part->data + part->types[number] : NULL;
}

static const char *name_get(const struct ipttrace_btf *btf, u32 at)
{
	const struct ipttrace_btf_part *part = &btf->kernel;

	if (btf->module.data && at >= btf->module.first_string)
		part = &btf->module;
	at -= part->first_string;
	return at < part->strings_size ? part->strings + at : "";
}

static bool is_composite(const struct btf_type *type)
{
	unsigned int kind = BTF_INFO_KIND(type->info);

	return kind == BTF_KIND_STRUCT || kind == BTF_KIND_UNION;
}

/**
 * ipttrace_btf_next_struct - find a struct by its name
 * @btf: the types
 * @part: where to look, one of its parts
 * @name: its name
 * @after: number of the type to begin behind, or 0
 *
 * Return: its number, or 0 if there is no other one.
 */
u32 ipttrace_btf_next_struct(const struct ipttrace_btf *btf,
			     const struct ipttrace_btf_part *part,
			     const char *name, u32 after)
{
	u32 i = after ? after - part->first + 1 : 0;

	for (; i < part->count; i++) {
		const struct btf_type *type = part->data + part->types[i];

		if (BTF_INFO_KIND(type->info) == BTF_KIND_STRUCT &&
		    !strcmp(name_get(btf, type->name_off), name))
			return part->first + i;
	}
	return 0;
}

/**
 * ipttrace_btf_size - tell how much memory a type takes
 * @btf: the types
 * @number: number of the type
 * @size: set to its size in bytes
 *
 * Return: false if it has none.
 */
bool ipttrace_btf_size(const struct ipttrace_btf *btf, u32 number, u32 *size)
{
	u64 elements = 1, bytes;
	unsigned int steps;

	for (steps = 0; steps < MAX_STEPS && elements <= MAX_SIZE; steps++) {
		const struct btf_type *type = type_get(btf, number);
		const struct btf_array *array;

		if (!type)
			return false;
		switch (BTF_INFO_KIND(type->info)) {
		case BTF_KIND_ARRAY:
			array = (const struct btf_array *)(type + 1);
			elements *= array->nelems;
			number = array->type;
			continue;
		case BTF_KIND_TYPEDEF:
		case BTF_KIND_VOLATILE:
		case BTF_KIND_CONST:
		case BTF_KIND_RESTRICT:
		case BTF_KIND_TYPE_TAG:
			number = type->type;
			continue;
		case BTF_KIND_PTR:
			bytes = elements * sizeof(void *);
			break;
		case BTF_KIND_INT:
		case BTF_KIND_ENUM:
		case BTF_KIND_ENUM64:
		case BTF_KIND_FLOAT:
		case BTF_KIND_STRUCT:
		case BTF_KIND_UNION:
			bytes = elements * type->size;
			break;
		default:
			return false;
		}
		*size = bytes;
		return bytes <= MAX_SIZE;
	}
	return false;
}

/* The place of a member of a struct, whose bits are told if it is a bit field. */
static bool place_get(const struct ipttrace_btf *btf,
		      const struct btf_type *type,
		      const struct btf_member *member,
		      struct ipttrace_btf_place *place)
{
	u32 size;

	place->at = member->offset;
	place->bits = 0;
	if (BTF_INFO_KFLAG(type->info)) {
		place->at = BTF_MEMBER_BIT_OFFSET(member->offset);
		place->bits = BTF_MEMBER_BITFIELD_SIZE(member->offset);
	}
	if (place->bits)
		return true;
	if (!ipttrace_btf_size(btf, member->type, &size))
		return false;
	place->bits = size * BITS_PER_BYTE;
	return true;
}

/* Finds a member, also in structs and unions without a name. */
static bool member_find(const struct ipttrace_btf *btf,
			const struct btf_type *type, const char *name,
			struct ipttrace_btf_place *place, unsigned int depth)
{
	const struct btf_member *members =
		(const struct btf_member *)(type + 1);
	unsigned int i;

	for (i = 0; i < BTF_INFO_VLEN(type->info); i++) {
		const struct btf_member *member = &members[i];
		struct ipttrace_btf_place outer;
		const struct btf_type *inner;

		if (member->name_off) {
			if (!strcmp(name_get(btf, member->name_off), name))
				return place_get(btf, type, member, place);
			continue;
		}
		inner = type_get(btf, member->type);
		if (!depth || !inner || !is_composite(inner) ||
		    !place_get(btf, type, member, &outer) ||
		    !member_find(btf, inner, name, place, depth - 1))
			continue;
		place->at += outer.at;
		return true;
	}
	return false;
}

/**
 * ipttrace_btf_member - tell where a struct has a member
 * @btf: the types
 * @number: number of the struct
 * @name: name of the member
 * @place: set to its place
 *
 * Return: false if the struct has no such member.
 */
bool ipttrace_btf_member(const struct ipttrace_btf *btf, u32 number,
			 const char *name, struct ipttrace_btf_place *place)
{
	const struct btf_type *type = type_get(btf, number);

	return type && is_composite(type) &&
	       member_find(btf, type, name, place, MAX_NESTING);
}
