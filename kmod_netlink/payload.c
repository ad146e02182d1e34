// SPDX-License-Identifier: GPL-2.0
/*
 * Payloads: bytes that a program adds to its event. They are the first element of a per-CPU array,
 * copied while nothing else can write to it.
 */
#include <net/netlink.h>

#include "compat/bpf.h"
#include "events.h"
#include "payload.h"

IPTTRACE_IMPORT_BPF_INTERNAL;

/* The programs of all other slots ask for events. */
#define EMITTING_SLOTS (~BIT(IPTTRACE_SLOT_ENTRY))

static int payload_check(const struct ipttrace_set *set,
			 const struct bpf_map *map, const struct nlattr *attr,
			 struct netlink_ext_ack *extack)
{
	if (map->map_type != BPF_MAP_TYPE_PERCPU_ARRAY) {
		NL_SET_ERR_MSG_ATTR(extack, attr,
				    "the payload map is not a per-CPU array");
		return -EINVAL;
	}
	if (map->value_size > IPTTRACE_MAX_PAYLOAD) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the payload map has values of more than 256 bytes");
		return -E2BIG;
	}
	if (!set->payload_slots) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"no program of the set that emits events uses the payload map");
		return -EINVAL;
	}
	return 0;
}

static_assert(IPTTRACE_MAX_PAYLOAD == 256);

/**
 * ipttrace_set_add_payload - give a set the map whose first element goes with its events
 * @set: a set that is not published and has all its programs
 * @attr: the map's file descriptor, of the process whose request we handle
 * @extack: extended ACK, set on error
 *
 * The set holds a reference to the map afterwards.
 *
 * Return: 0, -EINVAL, -EBADF, -E2BIG, -ENOMEM.
 */
int ipttrace_set_add_payload(struct ipttrace_set *set,
			     const struct nlattr *attr,
			     struct netlink_ext_ack *extack)
{
	struct bpf_map *map = bpf_map_get(nla_get_u32(attr));
	unsigned int slot;
	int err;

	if (IS_ERR(map)) {
		NL_SET_ERR_MSG_ATTR(extack, attr,
				    "the file descriptor is not of a BPF map");
		return PTR_ERR(map);
	}
	for_each_set_bit(slot, &set->slots, IPTTRACE_SLOTS)
		if (EMITTING_SLOTS & BIT(slot) &&
		    ipttrace_program_uses(set->progs[slot], map))
			__set_bit(slot, &set->payload_slots);
	err = payload_check(set, map, attr, extack);
	if (!err)
		err = ipttrace_events_make_room();
	if (err) {
		set->payload_slots = 0;
		bpf_map_put(map);
		return err;
	}
	set->payload = map;
	return 0;
}

/**
 * ipttrace_set_payload - payload of the program in a slot
 * @set: the program set
 * @slot: a slot whose program has just run and asked for an event
 *
 * Context: still on the CPU that the program ran on, with softirqs off and, if another program of
 * the set could come in between, preemption off.
 * Return: the payload map's value_size bytes, or NULL if the program has none to add.
 */
const void *ipttrace_set_payload(const struct ipttrace_set *set,
				 enum ipttrace_slot slot)
{
	u32 first = 0;

	if (likely(!(set->payload_slots & BIT(slot))))
		return NULL;
	return set->payload->ops->map_lookup_elem(set->payload, &first);
}
