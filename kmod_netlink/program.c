// SPDX-License-Identifier: GPL-2.0
/*
 * Program sets: taking programs from file descriptors, and refusing what we cannot run safely.
 */
#include <net/netlink.h>

#include "active.h"
#include "compat/bpf.h"
#include "events.h"
#include "label.h"
#include "limits.h"
#include "link.h"
#include "payload.h"
#include "program.h"

/**
 * ipttrace_set_alloc - a program set without programs
 *
 * Return: the set, which ipttrace_set_free() frees, or NULL.
 */
struct ipttrace_set *ipttrace_set_alloc(void)
{
	return kzalloc(sizeof(struct ipttrace_set), GFP_KERNEL);
}

/**
 * ipttrace_set_free - free a set and its references to programs
 * @set: a set that no reader can see any more; may be NULL
 */
void ipttrace_set_free(struct ipttrace_set *set)
{
	unsigned int slot;

	if (!set)
		return;
	for (slot = 0; slot < IPTTRACE_SLOTS; slot++)
		if (set->progs[slot])
			bpf_prog_put(set->progs[slot]);
	if (set->filter)
		bpf_prog_destroy(set->filter);
	kfree(set->filter_code);
	if (set->payload)
		bpf_map_put(set->payload);
	ipttrace_limits_free(set->limits);
	ipttrace_labels_put(set->labels);
	kfree(set);
}

/**
 * ipttrace_program_map - a map that a program uses
 * @prog: the program
 * @place: number of the map, from 0
 *
 * Return: the map, which stays as long as the program does, or NULL if it uses fewer.
 */
const struct bpf_map *ipttrace_program_map(const struct bpf_prog *prog,
					   u32 place)
{
	const struct bpf_map *map = NULL;

	mutex_lock(&prog->aux->used_maps_mutex);
	if (place < prog->aux->used_map_cnt)
		map = prog->aux->used_maps[place];
	mutex_unlock(&prog->aux->used_maps_mutex);
	return map;
}

/**
 * ipttrace_program_uses - check whether a program uses a map
 * @prog: the program
 * @map: the map
 */
bool ipttrace_program_uses(const struct bpf_prog *prog,
			   const struct bpf_map *map)
{
	const struct bpf_map *used;
	u32 i;

	for (i = 0; (used = ipttrace_program_map(prog, i)); i++)
		if (used == map)
			return true;
	return false;
}

/* Also if the program finds such maps in its maps. */
static bool uses_type(const struct bpf_prog *prog, enum bpf_map_type type)
{
	const struct bpf_map *map;
	u32 i;

	for (i = 0; (map = ipttrace_program_map(prog, i)); i++)
		if (map->map_type == type ||
		    (map->inner_map_meta &&
		     map->inner_map_meta->map_type == type))
			return true;
	return false;
}

/**
 * ipttrace_program_hides_maps - check whether a program may use other maps than those it names
 * @prog: the program
 *
 * It may: by maps in its maps, and by an extension that takes the place of one of its functions.
 * Tail calls are refused.
 */
bool ipttrace_program_hides_maps(const struct bpf_prog *prog)
{
	return uses_type(prog, BPF_MAP_TYPE_ARRAY_OF_MAPS) ||
	       uses_type(prog, BPF_MAP_TYPE_HASH_OF_MAPS) ||
	       ipttrace_prog_extended(prog);
}

/* Nobody checks the programs that tail calls enter for what we refuse. */
static int tail_calls_check(const struct bpf_prog *prog,
			    const struct nlattr *attr,
			    struct netlink_ext_ack *extack)
{
	if (!uses_type(prog, BPF_MAP_TYPE_PROG_ARRAY))
		return 0;
	NL_SET_ERR_MSG_ATTR(
		extack, attr,
		"the program makes tail calls: what they enter cannot be checked");
	return -EOPNOTSUPP;
}

/*
 * Refuses socket filters that cannot run here safely. The verifier lets them put a packet's socket
 * into a map of sockets, since it knows of no place where that socket is locked. But TCP locks it
 * while it sends: the update would wait for its own CPU.
 */
static int socket_filter_check(const struct bpf_prog *prog,
			       const struct nlattr *attr,
			       struct netlink_ext_ack *extack)
{
	if (uses_type(prog, BPF_MAP_TYPE_SOCKMAP) ||
	    uses_type(prog, BPF_MAP_TYPE_SOCKHASH)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the program uses a map of sockets: it could wait for the socket that sends the packet, and is locked");
		return -EOPNOTSUPP;
	}
	return tail_calls_check(prog, attr, extack);
}

/* Refuses kprobe programs that cannot run here safely. */
static int kprobe_check(const struct bpf_prog *prog, const struct nlattr *attr,
			struct netlink_ext_ack *extack)
{
	if (ipttrace_prog_sleepable(prog)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"sleepable programs cannot run where packets are handled");
		return -EOPNOTSUPP;
	}
	if (prog->expected_attach_type) {
		/* their helpers expect the larger run context of a multi link or session */
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the program is made for another attach type (multi or session); load it as a plain kprobe program");
		return -EOPNOTSUPP;
	}
	if (prog->kprobe_override) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the program calls bpf_override_return, which has no meaning here");
		return -EOPNOTSUPP;
	}
	if (ipttrace_prog_private_stack(prog) && !ipttrace_active_find()) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the program has a private stack, and this kernel hides what keeps another program off it (bpf_prog_active)");
		return -EOPNOTSUPP;
	}
	return tail_calls_check(prog, attr, extack);
}

/* Takes a program for a slot from a file descriptor, or says why it does not fit. */
static struct bpf_prog *program_get(const struct nlattr *fd_attr, u32 slot,
				    struct netlink_ext_ack *extack)
{
	bool packet = slot == IPTTRACE_SLOT_PACKET;
	struct bpf_prog *prog;
	int err;

	prog = bpf_prog_get_type_dev(nla_get_u32(fd_attr),
				     packet ? BPF_PROG_TYPE_SOCKET_FILTER :
					      BPF_PROG_TYPE_KPROBE,
				     false);
	if (PTR_ERR_OR_ZERO(prog) == -EBADF)
		NL_SET_ERR_MSG_ATTR(extack, fd_attr,
				    "no such file descriptor is open");
	else if (IS_ERR(prog) && packet)
		NL_SET_ERR_MSG_ATTR(
			extack, fd_attr,
			"the file descriptor is not of a BPF program of type socket filter");
	else if (IS_ERR(prog))
		NL_SET_ERR_MSG_ATTR(
			extack, fd_attr,
			"the file descriptor is not of a BPF program of type kprobe");
	if (IS_ERR(prog))
		return prog;
	err = packet ? socket_filter_check(prog, fd_attr, extack) :
		       kprobe_check(prog, fd_attr, extack);
	if (err) {
		bpf_prog_put(prog);
		return ERR_PTR(err);
	}
	return prog;
}

/**
 * ipttrace_set_add_program - put the program behind a file descriptor into a slot
 * @set: a set that is not published
 * @slot_attr: the slot; its policy bounds it
 * @fd_attr: the file descriptor, of the process whose request we handle
 * @extack: extended ACK, set on error
 *
 * The set holds a reference to the program afterwards.
 *
 * Return: 0, -EINVAL, -EBADF, -EOPNOTSUPP.
 */
int ipttrace_set_add_program(struct ipttrace_set *set,
			     const struct nlattr *slot_attr,
			     const struct nlattr *fd_attr,
			     struct netlink_ext_ack *extack)
{
	u32 slot = nla_get_u32(slot_attr);
	struct bpf_prog *prog;

	if (set->progs[slot]) {
		NL_SET_ERR_MSG_ATTR(extack, slot_attr,
				    "the slot is given twice");
		return -EINVAL;
	}
	prog = program_get(fd_attr, slot, extack);
	if (IS_ERR(prog))
		return PTR_ERR(prog);
	set->progs[slot] = prog;
	__set_bit(slot, &set->slots);
	if (slot != IPTTRACE_SLOT_PACKET && ipttrace_prog_private_stack(prog))
		__set_bit(slot, &set->alone);
	return 0;
}

static bool filter_draws(const struct sock_fprog_kern *fprog)
{
	unsigned int i;

	for (i = 0; i < fprog->len; i++) {
		const struct sock_filter *insn = &fprog->filter[i];

		if (BPF_CLASS(insn->code) == BPF_LD &&
		    BPF_MODE(insn->code) == BPF_ABS &&
		    insn->k == (u32)(SKF_AD_OFF + SKF_AD_RANDOM))
			return true;
	}
	return false;
}

/**
 * ipttrace_set_add_filter - give a set its classic-BPF filter
 * @set: a set that is not published and has none
 * @attr: struct sock_filter[]
 * @extack: extended ACK, set on error
 *
 * Return: 0, -EINVAL, -ENOMEM.
 */
int ipttrace_set_add_filter(struct ipttrace_set *set, const struct nlattr *attr,
			    struct netlink_ext_ack *extack)
{
	struct sock_fprog_kern fprog = {
		.len = nla_len(attr) / sizeof(struct sock_filter),
		.filter = nla_data(attr),
	};
	int err;

	if (!fprog.len || nla_len(attr) % sizeof(struct sock_filter)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the filter is not a whole number of instructions");
		return -EINVAL;
	}
	/* the kernel translates them and keeps no copy that a reply could return */
	set->filter_code = kmemdup(nla_data(attr), nla_len(attr), GFP_KERNEL);
	if (!set->filter_code)
		return -ENOMEM;
	err = bpf_prog_create(&set->filter, &fprog);
	if (err) {
		set->filter = NULL;
		NL_SET_ERR_MSG_ATTR(extack, attr,
				    "the filter is not valid classic BPF");
		return err;
	}
	set->filter_len = fprog.len;
	set->filter_draws = filter_draws(&fprog);
	return 0;
}

static void emit(const struct ipttrace_set *set, struct ipttrace_event *event,
		 const void *payload, u32 size)
{
	event->link = set->link->id;
	event->generation = set->generation;
	if (!ipttrace_events_emit(event, payload, size))
		this_cpu_inc(set->link->stats->lost);
}

/**
 * ipttrace_set_emit - send the event that a program asked for
 * @set: its program set
 * @slot: its slot
 * @event: filled in but for link and generation
 *
 * Context: see ipttrace_set_payload().
 */
void ipttrace_set_emit(const struct ipttrace_set *set, enum ipttrace_slot slot,
		       struct ipttrace_event *event)
{
	const void *payload = ipttrace_set_payload(set, slot);

	emit(set, event, payload, payload ? set->payload->value_size : 0);
}

/**
 * ipttrace_set_emit_disagreement - send the event of a verdict that a shadow does not share
 * @set: the link's program set
 * @shadow: its shadow, whose payload goes with the event; NULL if its program did not run
 * @event: filled in but for link and generation
 *
 * Context: see ipttrace_set_payload().
 */
void ipttrace_set_emit_disagreement(const struct ipttrace_set *set,
				    const struct ipttrace_set *shadow,
				    struct ipttrace_event *event)
{
	const void *payload = NULL;
	u32 size = 0;

	if (shadow)
		payload = ipttrace_set_payload(shadow, IPTTRACE_SLOT_PACKET);
	if (payload)
		size = shadow->payload->value_size;
	emit(set, event, payload, size);
}
