// SPDX-License-Identifier: GPL-2.0
/*
 * Program sets that were replaced, until the last packet that met them has gone: whoever asked for
 * the swap does not wait for that, and is notified of it.
 */
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "compat/compiler.h"
#include "message.h"
#include "retire.h"

/* A set that was replaced, owned; the link may be gone before it ends. */
struct retired {
	u32 link;
	u32 generation;
	struct ipttrace_set *set;
};

/**
 * struct ipttrace_retirement - program sets that one change of links has replaced
 * @work: frees them a grace period later, and notifies of their end
 * @publication: what was in force before, owned
 * @count: number of sets
 * @retired: the sets
 *
 * Belongs to the function that makes the change until it is queued, then to @work. Nothing waits
 * for it but the end of the module.
 */
struct ipttrace_retirement {
	struct rcu_work work;
	struct ipttrace_publication publication;
	unsigned int count;
	struct retired retired[] __counted_by(count);
};

static struct workqueue_struct *retire_queue;
/* Retirements that wait for their grace period; under ipttrace_lock. */
static unsigned int retiring;

/* Retirements may end out of order: when a set has ended, so have those before it. */
static void notify_of_end(const struct retired *retired)
{
	struct ipttrace_link *link;

	list_for_each_entry(link, &ipttrace_links, list)
		if (link->id == retired->link &&
		    link->ended < retired->generation) {
			link->ended = retired->generation;
			ipttrace_notify(link, IPTTRACE_CMD_LINK_ENDED, 0,
					false);
		}
}

static void retire_work(struct work_struct *work)
{
	struct ipttrace_retirement *retirement = container_of(
		to_rcu_work(work), struct ipttrace_retirement, work);
	unsigned int i;

	mutex_lock(&ipttrace_lock);
	retiring--;
	ipttrace_links_sequence++;
	for (i = 0; i < retirement->count; i++)
		notify_of_end(&retirement->retired[i]);
	mutex_unlock(&ipttrace_lock);
	for (i = 0; i < retirement->count; i++)
		ipttrace_set_free(retirement->retired[i].set);
	ipttrace_publication_free(&retirement->publication);
	kfree(retirement);
}

/**
 * ipttrace_retirement_alloc - make ready to retire the sets of links
 * @changing: the links, by their change
 *
 * Return: the retirement, for ipttrace_retire() or ipttrace_retirement_free(); NULL if so many wait
 * that this change has to wait itself; or ERR_PTR(-ENOMEM).
 */
struct ipttrace_retirement *
ipttrace_retirement_alloc(const struct list_head *changing)
{
	struct ipttrace_retirement *retirement;
	const struct ipttrace_link *link;
	unsigned int count = 0;

	lockdep_assert_held(&ipttrace_lock);
	if (retiring >= IPTTRACE_MAX_RETIRING)
		return NULL;
	list_for_each_entry(link, changing, change)
		count++;
	retirement =
		kzalloc(struct_size(retirement, retired, count), GFP_KERNEL);
	if (!retirement)
		return ERR_PTR(-ENOMEM);
	retirement->count = count;
	INIT_RCU_WORK(&retirement->work, retire_work);
	return retirement;
}

/**
 * ipttrace_retirement_free - free a retirement of a change that is not made
 * @retirement: the retirement; may be NULL
 */
void ipttrace_retirement_free(struct ipttrace_retirement *retirement)
{
	kfree(retirement);
}

/**
 * ipttrace_retire - free the sets that were replaced, once no packet is handled by them
 * @retirement: what was made for it; used up
 * @changing: the links, by their change, which have been published; their other sets are taken
 * @publication: what was in force before; taken
 */
void ipttrace_retire(struct ipttrace_retirement *retirement,
		     const struct list_head *changing,
		     struct ipttrace_publication *publication)
{
	struct retired *retired = retirement->retired;
	struct ipttrace_link *link;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry(link, changing, change) {
		retired->link = link->id;
		retired->generation = link->other->generation;
		retired->set = link->other;
		link->other = NULL;
		retired++;
	}
	retirement->publication = *publication;
	retiring++;
	queue_rcu_work(retire_queue, &retirement->work);
}

/**
 * ipttrace_retire_wait - wait until no packet is handled by a set that was replaced before
 */
void ipttrace_retire_wait(void)
{
	lockdep_assert_held(&ipttrace_lock);
	if (retiring)
		synchronize_rcu();
}

/**
 * ipttrace_retire_init - make the queue of retirements
 *
 * Return: 0 or -ENOMEM.
 */
int ipttrace_retire_init(void)
{
	retire_queue = alloc_workqueue("ipttrace_retire", WQ_UNBOUND, 0);
	return retire_queue ? 0 : -ENOMEM;
}

/**
 * ipttrace_retire_flush - wait until all sets that were replaced have ended
 *
 * No link may be left: nothing else is retired meanwhile.
 */
void ipttrace_retire_flush(void)
{
	rcu_barrier();
	flush_workqueue(retire_queue);
}

/**
 * ipttrace_retire_exit - destroy the queue of retirements, which was flushed
 */
void ipttrace_retire_exit(void)
{
	destroy_workqueue(retire_queue);
}
