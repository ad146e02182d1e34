// SPDX-License-Identifier: GPL-2.0
/*
 * Holds an RCU read section, as a packet on a busy CPU does: for as many milliseconds as are
 * written to the parameter "hold". The write returns once it is held.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>

static DECLARE_COMPLETION(held);
static DECLARE_COMPLETION(left);

static int hold(void *data)
{
	unsigned long i, milliseconds = (unsigned long)data;

	rcu_read_lock();
	complete(&held);
	for (i = 0; i < milliseconds; i++)
		mdelay(1);
	rcu_read_unlock();
	/* the module may be unloaded from here on */
	kthread_complete_and_exit(&left, 0);
}

/* The writers are serialised by the parameters' own lock. */
static int set_hold(const char *value, const struct kernel_param *param)
{
	struct task_struct *task;
	unsigned int milliseconds;
	int err;

	err = kstrtouint(value, 0, &milliseconds);
	if (err)
		return err;
	task = kthread_run(hold, (void *)(unsigned long)milliseconds,
			   "rcu_reader");
	if (IS_ERR(task))
		return PTR_ERR(task);
	wait_for_completion(&held);
	return 0;
}

/* Reading waits until the section of the last write has ended. */
static int get_hold(char *buffer, const struct kernel_param *param)
{
	wait_for_completion(&left);
	return sysfs_emit(buffer, "0\n");
}

static const struct kernel_param_ops hold_ops = {
	.set = set_hold,
	.get = get_hold,
};
module_param_cb(hold, &hold_ops, NULL, 0600);

MODULE_DESCRIPTION("Test: an RCU reader that takes its time");
MODULE_LICENSE("GPL");
