// SPDX-License-Identifier: GPL-2.0
/*
 * Holds an RCU read section, as a packet on a busy CPU does: from the moment at which 1 is written
 * to the parameter "hold" until 0 is. Both writes return once it is so.
 */
#include <linux/completion.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>

/* Shorter than the kernel lets a CPU spin without a word: a test that fails holds no longer. */
#define MOST_SECONDS 15

static DECLARE_COMPLETION(held);
static DECLARE_COMPLETION(left);
static bool holding;

static int hold(void *data)
{
	ktime_t end = ktime_add_ms(ktime_get(), MOST_SECONDS * MSEC_PER_SEC);

	rcu_read_lock();
	complete(&held);
	while (READ_ONCE(holding) && ktime_before(ktime_get(), end))
		cpu_relax();
	rcu_read_unlock();
	/* the module may be unloaded from here on */
	kthread_complete_and_exit(&left, 0);
}

/* Writers are serialised by the lock of parameters. */
static int set_hold(const char *value, const struct kernel_param *param)
{
	struct task_struct *task;
	bool wanted;
	int err;

	err = kstrtobool(value, &wanted);
	if (err)
		return err;
	if (wanted == holding)
		return -EALREADY;
	WRITE_ONCE(holding, wanted);
	if (!wanted) {
		wait_for_completion(&left);
		return 0;
	}
	task = kthread_run(hold, NULL, "rcu_reader");
	if (IS_ERR(task)) {
		holding = false;
		return PTR_ERR(task);
	}
	wait_for_completion(&held);
	return 0;
}

static const struct kernel_param_ops hold_ops = {
	.set = set_hold,
};
module_param_cb(hold, &hold_ops, NULL, 0200);

MODULE_DESCRIPTION("Test: an RCU reader that takes its time");
MODULE_LICENSE("GPL");
