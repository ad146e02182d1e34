// SPDX-License-Identifier: GPL-2.0
/*
 * Whether packets of a network namespace may wait in queues (NFQUEUE). The kernel exports nothing
 * that tells. Its module nfnetlink_queue has the queues of a namespace in a table; where that lies
 * is in the kernel's own description of its types (btf.c). Where it cannot be known, every
 * namespace may have queues, once that module is loaded.
 */
#include <net/netns/generic.h>

#include "btf.h"
#include "queues.h"
#include "symbol.h"

#define MODULE_NAME "nfnetlink_queue"

/* The kernel's pointer to what queues packets, NULL while nothing does. NULL itself if hidden. */
static void *const *queue_handler;

/**
 * struct queue_table - the queues of namespaces, as the loaded module keeps them
 * @handler: what the kernel's pointer was then: another one is of another load of the module
 * @id: number of the module's data in each namespace; NULL if the rest is not known
 * @at: offset of the table in that data
 * @buckets: its number of lists
 *
 * Under the lock of the callers. @id is in the memory of the module, which is there in an RCU read
 * section in which @handler is the kernel's.
 */
static struct queue_table {
	const void *handler;
	const unsigned int *id;
	u32 at;
	u32 buckets;
} known;

static bool find_table(const struct ipttrace_btf *btf,
		       struct ipttrace_btf_place *place)
{
	u32 number = ipttrace_btf_next_struct(btf, &btf->module,
					      "nfnl_queue_net", 0);

	return number &&
	       ipttrace_btf_member(btf, number, "instance_table", place) &&
	       place->bits && !(place->at % BITS_PER_BYTE) &&
	       !(place->bits % BITS_PER_TYPE(struct hlist_head));
}

/**
 * ipttrace_queues_learn - find out where the module that is loaded now has its queues
 *
 * Context: process, may sleep; under the lock of the callers.
 */
void ipttrace_queues_learn(void)
{
	const void *handler = queue_handler ? READ_ONCE(*queue_handler) : NULL;
	struct ipttrace_btf_place place;
	struct ipttrace_btf btf;
	int err;

	if (!handler || handler == known.handler)
		return;
	known = (struct queue_table){ .handler = handler };
	err = ipttrace_btf_read(&btf, MODULE_NAME);
	if (err) {
		/* whoever asks next tries again, unless there is nothing to read */
		if (err == -ENOMEM)
			known = (struct queue_table){};
		return;
	}
	if (find_table(&btf, &place)) {
		known.at = place.at / BITS_PER_BYTE;
		known.buckets = place.bits / BITS_PER_TYPE(struct hlist_head);
		known.id = (void *)ipttrace_module_symbol_find(
			MODULE_NAME, "nfnl_queue_net_id");
	}
	ipttrace_btf_free(&btf);
	/* otherwise what was found may be of the next load of the module */
	if (READ_ONCE(*queue_handler) != handler)
		known = (struct queue_table){};
}

/*
 * The module's data in a namespace; NULL if the namespace is so new that the module does not have
 * it yet. Such a one may have been made before the module got its number, with no place for it:
 * net_generic() would read behind its end. In an RCU read section.
 */
static const void *queues_of(const struct net *net, unsigned int id)
{
	const struct net_generic *all = rcu_dereference(net->gen);

	return id < all->s.len ? all->ptr[id] : NULL;
}

/* Whether a namespace has any queue. */
static bool any_queue(const struct net *net)
{
	const void *queues = queues_of(net, *known.id);
	const struct hlist_head *table;
	u32 i;

	if (!queues)
		return false;
	table = queues + known.at;
	for (i = 0; i < known.buckets; i++)
		if (!hlist_empty(&table[i]))
			return true;
	return false;
}

/**
 * ipttrace_queues_may_hold - tell whether packets of a namespace may be waiting in queues
 * @net: the namespace, which cannot go meanwhile
 *
 * Context: under the lock of the callers.
 */
bool ipttrace_queues_may_hold(const struct net *net)
{
	const void *handler;
	bool may = true;

	if (!queue_handler)
		return true;
	rcu_read_lock();
	handler = READ_ONCE(*queue_handler);
	if (!handler)
		may = false;
	else if (known.id && known.handler == handler)
		may = any_queue(net);
	rcu_read_unlock();
	return may;
}

/**
 * ipttrace_queues_init - find the kernel's pointer to what queues packets
 *
 * Context: process, may sleep; before the other functions.
 */
void ipttrace_queues_init(void)
{
	queue_handler = (void *)ipttrace_symbol_find("nf_queue_handler");
}
