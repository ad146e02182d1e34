// SPDX-License-Identifier: GPL-2.0
/*
 * Steps of followed packets between their hooks: they are copied, sent by devices, merged by GRO,
 * come in by devices, are put together of fragments, come to sockets, are dropped, and freed.
 * Functions of the kernel are watched with ftrace for that, and tracepoints; nothing is redirected.
 *
 * Compared with net/core/skbuff.c of 6.1.192, 6.12.117 and 7.3.4: an sk_buff is freed by way of
 * skb_release_head_state(), or kfree_skbmem() alone (skb_consume_udp()), or
 * napi_skb_free_stolen_head() (GRO). skb_segment() and skb_segment_list() pass the first of these
 * with a clone that they go on with: for a journey that copy ends, and the next one has the same
 * place in memory. An sk_buff is copied by way of __copy_skb_header(), and made a
 * fragment of IP by ip_copy_metadata() or ip6_copy_metadata(). Fragments come to
 * inet_frag_queue_insert(), whose caller drops those that are not put together, and their whole to
 * inet_frag_reasm_finish() (net/ipv4/inet_fragment.c of the same).
 */
#include <linux/ip.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/skbuff.h>
#include <net/inet_frag.h>
#include <net/sock.h>

#include "compat/ftrace.h"
#include "compat/tracepoint.h"
#include "followed.h"
#include "journey_run.h"
#include "journey_steps.h"
#include "link.h"

/* A packet that came by nowhere for this time is not followed any more, in jiffies. */
#define PATIENCE (60 * HZ)
/* It is told of within this time. */
#define TELLING (5 * HZ)

static atomic64_t lost;

/* --- packets ---------------------------------------------------------------------------------- */

/* Whether the network header is in the linear part of the packet, so that it can be described. */
static bool header_is_there(const struct sk_buff *skb)
{
	const unsigned char *header = skb->head + skb->network_header;

	return skb->network_header != (typeof(skb->network_header))~0U &&
	       header + sizeof(struct iphdr) <= skb_tail_pointer(skb);
}

static u8 packet_family(const struct sk_buff *skb)
{
	switch (skb->protocol) {
	case htons(ETH_P_IP):
		return NFPROTO_IPV4;
	case htons(ETH_P_IPV6):
		return NFPROTO_IPV6;
	case htons(ETH_P_ARP):
		return NFPROTO_ARP;
	default:
		return NFPROTO_UNSPEC;
	}
}

/* --- handlers ------------------------------------------------------------------------------ */

/* Tells whether handlers may look at what they are called for. Packets are not in NMIs. */
static __always_inline bool watching(unsigned int function, unsigned long ip)
{
	return READ_ONCE(ipttrace_step_functions[function].site) == ip &&
	       !in_nmi();
}

static noinline notrace void passed_device(const struct sk_buff *skb,
					   const struct net_device *dev,
					   bool sent)
{
	struct nf_hook_state state = {
		.pf = packet_family(skb),
		.net = dev_net(dev),
	};
	struct ipttrace_step step = {
		.kind = sent ? IPTTRACE_KIND_JOURNEY_SENT :
			       IPTTRACE_KIND_JOURNEY_RECEIVED,
		.skb = skb,
		.state = &state,
		.object = dev,
	};
	struct ipttrace_followed known;

	if (sent)
		state.out = (struct net_device *)dev;
	else
		state.in = (struct net_device *)dev;
	if (!header_is_there(skb))
		step.state = NULL;
	if (ipttrace_followed_move(skb, dev, !sent, &known) && known.on)
		ipttrace_step_show(&step, &known);
}

static noinline notrace void freed(const struct sk_buff *skb)
{
	struct ipttrace_step step = {
		.kind = IPTTRACE_KIND_JOURNEY_FREED,
		.skb = skb,
	};
	struct ipttrace_followed known;

	if (ipttrace_followed_remove(skb, &known) && known.on && !known.dropped)
		ipttrace_step_show(&step, &known);
}

static void notrace free_handler(unsigned long ip, unsigned long parent_ip,
				 struct ftrace_ops *ops,
				 struct ftrace_regs *fregs)
{
	const struct sk_buff *skb = (void *)ipttrace_argument(fregs, 0);

	preempt_disable_notrace();
	if (ipttrace_followed_any(skb) &&
	    (watching(IPTTRACE_STEP_RELEASE_HEAD, ip) ||
	     watching(IPTTRACE_STEP_FREE_MEMORY, ip) ||
	     watching(IPTTRACE_STEP_STOLEN_HEAD, ip)))
		freed(skb);
	preempt_enable_notrace();
}

static noinline notrace void copied(const struct sk_buff *copy,
				    const struct sk_buff *skb)
{
	struct ipttrace_step step = {
		.kind = IPTTRACE_KIND_JOURNEY_COPY,
		.skb = copy,
		.object = skb,
	};
	struct ipttrace_followed known;

	if (ipttrace_followed_copy(copy, skb, &known) && known.on)
		ipttrace_step_show(&step, &known);
}

static void notrace copy_handler(unsigned long ip, unsigned long parent_ip,
				 struct ftrace_ops *ops,
				 struct ftrace_regs *fregs)
{
	const struct sk_buff *copy = (void *)ipttrace_argument(fregs, 0);
	const struct sk_buff *skb = (void *)ipttrace_argument(fregs, 1);

	preempt_disable_notrace();
	if (ipttrace_followed_any(skb) &&
	    (watching(IPTTRACE_STEP_COPY_HEADER, ip) ||
	     watching(IPTTRACE_STEP_FRAGMENT, ip) ||
	     watching(IPTTRACE_STEP_FRAGMENT6, ip)))
		copied(copy, skb);
	preempt_enable_notrace();
}

static noinline notrace void arrived(const struct sock *sk,
				     const struct sk_buff *skb)
{
	struct nf_hook_state state = {
		.pf = packet_family(skb),
		.net = sock_net(sk),
	};
	struct ipttrace_step step = {
		.kind = IPTTRACE_KIND_JOURNEY_SOCKET,
		.skb = skb,
		.state = header_is_there(skb) ? &state : NULL,
		.object = sk,
		.value = from_kuid(&init_user_ns, READ_ONCE(sk->sk_uid)),
	};
	struct ipttrace_followed known;

	if (ipttrace_followed_arrive(skb, &known) && known.on)
		ipttrace_step_show(&step, &known);
}

/* Others have filters too, which are in no inode of a socket: those of tun, for example. */
static bool is_of_ip(const struct sock *sk)
{
	return sk->sk_family == AF_INET || sk->sk_family == AF_INET6;
}

static void notrace socket_handler(unsigned long ip, unsigned long parent_ip,
				   struct ftrace_ops *ops,
				   struct ftrace_regs *fregs)
{
	const struct sock *sk = (void *)ipttrace_argument(fregs, 0);
	const struct sk_buff *skb = (void *)ipttrace_argument(fregs, 1);

	preempt_disable_notrace();
	if (ipttrace_followed_any(skb) && watching(IPTTRACE_STEP_SOCKET, ip) &&
	    is_of_ip(sk))
		arrived(sk, skb);
	preempt_enable_notrace();
}

static noinline notrace void merges(const struct sk_buff *into,
				    const struct sk_buff *skb)
{
	struct ipttrace_step step = {
		.kind = IPTTRACE_KIND_JOURNEY_JOINED,
		.skb = skb,
		.object = into,
	};
	struct ipttrace_followed known, other;

	if (!ipttrace_followed_find(skb, &known) || !known.on)
		return;
	known.origin = ipttrace_followed_find(into, &other) ? other.packet : 0;
	ipttrace_step_show(&step, &known);
}

/* Whether it is merged shows when it is freed: GRO can still refuse that. */
static void notrace merge_handler(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	const struct sk_buff *into = (void *)ipttrace_argument(fregs, 0);
	const struct sk_buff *skb = (void *)ipttrace_argument(fregs, 1);

	preempt_disable_notrace();
	if (ipttrace_followed_any(skb) &&
	    (watching(IPTTRACE_STEP_MERGE, ip) ||
	     watching(IPTTRACE_STEP_MERGE_LIST, ip)))
		merges(into, skb);
	preempt_enable_notrace();
}

/*
 * Notes by which device a packet has come to its protocol. The tracepoint sees the first one only,
 * where a macvlan, VLAN or bond device takes it from there.
 */
static noinline notrace void came_in(const struct sk_buff *skb)
{
	const struct net_device *dev = skb->dev;
	struct ipttrace_followed known;

	if (ipttrace_followed_find(skb, &known) &&
	    (known.ifindex != dev->ifindex ||
	     known.netns_cookie != dev_net(dev)->net_cookie))
		passed_device(skb, dev, false);
}

static void notrace input_handler(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	const struct sk_buff *skb = (void *)ipttrace_argument(fregs, 0);

	preempt_disable_notrace();
	if (ipttrace_followed_any(skb) && (watching(IPTTRACE_STEP_IP, ip) ||
					   watching(IPTTRACE_STEP_IP6, ip) ||
					   watching(IPTTRACE_STEP_ARP, ip)))
		came_in(skb);
	preempt_enable_notrace();
}

static void notrace input_list_handler(unsigned long ip,
				       unsigned long parent_ip,
				       struct ftrace_ops *ops,
				       struct ftrace_regs *fregs)
{
	const struct list_head *packets = (void *)ipttrace_argument(fregs, 0);
	const struct sk_buff *skb;

	preempt_disable_notrace();
	if (watching(IPTTRACE_STEP_IP_LIST, ip) ||
	    watching(IPTTRACE_STEP_IP6_LIST, ip))
		list_for_each_entry(skb, packets, list)
			if (ipttrace_followed_any(skb))
				came_in(skb);
	preempt_enable_notrace();
}

static noinline notrace void put_together(const struct inet_frag_queue *queue,
					  const struct sk_buff *skb,
					  enum ipttrace_kind kind)
{
	struct ipttrace_step step = {
		.kind = kind,
		.skb = skb,
		.object = queue,
	};
	struct ipttrace_followed known;

	if (ipttrace_followed_find(skb, &known) && known.on)
		ipttrace_step_show(&step, &known);
}

/* The whole is what was the last fragment: it is a copy of the first one by now. */
static void notrace fragment_handler(unsigned long ip, unsigned long parent_ip,
				     struct ftrace_ops *ops,
				     struct ftrace_regs *fregs)
{
	const struct inet_frag_queue *queue =
		(void *)ipttrace_argument(fregs, 0);
	const struct sk_buff *skb = (void *)ipttrace_argument(fregs, 1);

	preempt_disable_notrace();
	if (ipttrace_followed_any(skb)) {
		if (watching(IPTTRACE_STEP_WAITS, ip))
			put_together(queue, skb, IPTTRACE_KIND_JOURNEY_WAITS);
		else if (watching(IPTTRACE_STEP_WHOLE, ip))
			put_together(queue, skb, IPTTRACE_KIND_JOURNEY_WHOLE);
	}
	preempt_enable_notrace();
}

/* PERMANENT: sysctl kernel.ftrace_enabled must not hide that packets are freed. */
#define WATCH(handler)                                                      \
	{                                                                   \
		.ops = {.func = handler, .flags = FTRACE_OPS_FL_PERMANENT } \
	}

static struct ipttrace_watch free_watch = WATCH(free_handler);
static struct ipttrace_watch copy_watch = WATCH(copy_handler);
static struct ipttrace_watch socket_watch = WATCH(socket_handler);
static struct ipttrace_watch merge_watch = WATCH(merge_handler);
static struct ipttrace_watch input_watch = WATCH(input_handler);
static struct ipttrace_watch input_list_watch = WATCH(input_list_handler);
static struct ipttrace_watch fragment_watch = WATCH(fragment_handler);

struct ipttrace_function ipttrace_step_functions[IPTTRACE_STEP_FUNCTIONS] = {
	[IPTTRACE_STEP_RELEASE_HEAD] = {
		.symbol = "skb_release_head_state",
		.watch = &free_watch,
		.shown = true,
	},
	[IPTTRACE_STEP_FREE_MEMORY] = {
		.symbol = "kfree_skbmem",
		.watch = &free_watch,
	},
	[IPTTRACE_STEP_STOLEN_HEAD] = {
		.symbol = "napi_skb_free_stolen_head",
		.watch = &free_watch,
	},
	[IPTTRACE_STEP_COPY_HEADER] = {
		.symbol = "__copy_skb_header",
		.watch = &copy_watch,
	},
	[IPTTRACE_STEP_FRAGMENT] = {
		.symbol = "ip_copy_metadata",
		.watch = &copy_watch,
	},
	[IPTTRACE_STEP_FRAGMENT6] = {
		.symbol = "ip6_copy_metadata",
		.watch = &copy_watch,
	},
	[IPTTRACE_STEP_SOCKET] = {
		.symbol = "sk_filter_trim_cap",
		.watch = &socket_watch,
	},
	[IPTTRACE_STEP_MERGE] = {
		.symbol = "skb_gro_receive",
		.watch = &merge_watch,
	},
	[IPTTRACE_STEP_MERGE_LIST] = {
		.symbol = "skb_gro_receive_list",
		.watch = &merge_watch,
	},
	[IPTTRACE_STEP_IP] = {
		.symbol = "ip_rcv",
		.watch = &input_watch,
	},
	[IPTTRACE_STEP_IP6] = {
		.symbol = "ipv6_rcv",
		.watch = &input_watch,
	},
	[IPTTRACE_STEP_ARP] = {
		.symbol = "arp_rcv",
		.watch = &input_watch,
	},
	[IPTTRACE_STEP_IP_LIST] = {
		.symbol = "ip_list_rcv",
		.watch = &input_list_watch,
	},
	[IPTTRACE_STEP_IP6_LIST] = {
		.symbol = "ipv6_list_rcv",
		.watch = &input_list_watch,
	},
	[IPTTRACE_STEP_WAITS] = {
		.symbol = "inet_frag_queue_insert",
		.watch = &fragment_watch,
	},
	[IPTTRACE_STEP_WHOLE] = {
		.symbol = "inet_frag_reasm_finish",
		.watch = &fragment_watch,
	},
};

/* --- tracepoints --------------------------------------------------------------------------- */

/* Probes run with preemption off, but for kernels that let it be on there. */

static noinline void dropped(const struct sk_buff *skb, const void *location,
			     u32 reason)
{
	struct ipttrace_step step = {
		.kind = IPTTRACE_KIND_JOURNEY_DROPPED,
		.skb = skb,
		.object = location,
		.value = reason,
	};
	struct ipttrace_followed known;

	if (ipttrace_followed_drop(skb, &known) && known.on && !known.dropped)
		ipttrace_step_show(&step, &known);
}

static void drop_probe(void *data, struct sk_buff *skb, void *location,
		       IPTTRACE_KFREE_SKB_REASON)
{
	rcu_read_lock();
	if (ipttrace_followed_any(skb) && !in_nmi())
		dropped(skb, location, reason);
	rcu_read_unlock();
}

static void send_probe(void *data, const struct sk_buff *skb,
		       const struct net_device *dev)
{
	rcu_read_lock();
	if (ipttrace_followed_any(skb) && !in_nmi())
		passed_device(skb, dev, true);
	rcu_read_unlock();
}

static void receive_probe(void *data, struct sk_buff *skb)
{
	rcu_read_lock();
	if (ipttrace_followed_any(skb) && !in_nmi())
		passed_device(skb, skb->dev, false);
	rcu_read_unlock();
}

/* Tracepoints that are not exported are found by their names. Under the arming lock. */
static struct probe {
	const char *name;
	void *function;
	struct tracepoint *tracepoint;
	bool registered;
} probes[] = {
	{ .name = "kfree_skb", .function = (void *)drop_probe },
	{ .name = "net_dev_start_xmit", .function = (void *)send_probe },
	{ .name = "netif_receive_skb", .function = (void *)receive_probe },
};

static void note_tracepoint(struct tracepoint *tracepoint, void *data)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(probes); i++)
		if (!strcmp(tracepoint->name, probes[i].name))
			probes[i].tracepoint = tracepoint;
}

static void probes_unregister(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(probes); i++) {
		if (!probes[i].registered)
			continue;
		WARN_ON_ONCE(tracepoint_probe_unregister(
			probes[i].tracepoint, probes[i].function, NULL));
		probes[i].registered = false;
	}
	tracepoint_synchronize_unregister();
}

static int probe_register(struct probe *probe)
{
	int err;

	if (probe->registered)
		return 0;
	if (!probe->tracepoint)
		return -ENOENT;
	err = tracepoint_probe_register(probe->tracepoint, probe->function,
					NULL);
	probe->registered = !err;
	return err;
}

/* --- packets that nobody sees any more ------------------------------------------------------ */

static void expire(struct work_struct *work);
static DECLARE_DELAYED_WORK(expiry, expire);

static void expire(struct work_struct *work)
{
	struct ipttrace_step step = { .kind = IPTTRACE_KIND_JOURNEY_LOST };
	struct ipttrace_followed known;
	unsigned int place = 0;
	bool any;

	do {
		rcu_read_lock();
		any = ipttrace_followed_expire(&place, PATIENCE, &known);
		/* one that came to a socket waits there to be read */
		if (any && known.on && !known.dropped && !known.arrived) {
			atomic64_inc(&lost);
			ipttrace_step_show(&step, &known);
		}
		rcu_read_unlock();
		cond_resched();
	} while (any);
	queue_delayed_work(system_unbound_wq, &expiry, TELLING);
}

/**
 * ipttrace_steps_begin - watch tracepoints, and look for packets that nobody sees any more
 * @extack: extended ACK, set on error
 *
 * Context: process, between begin and end of the arming of the functions.
 * Return: 0, also if that is done already; -EOPNOTSUPP or -ENOMEM.
 */
int ipttrace_steps_begin(struct netlink_ext_ack *extack)
{
	unsigned int i;
	int err = 0;

	for_each_kernel_tracepoint(note_tracepoint, NULL);
	for (i = 0; i < ARRAY_SIZE(probes) && !err; i++)
		err = probe_register(&probes[i]);
	if (err) {
		probes_unregister();
		NL_SET_ERR_MSG(extack,
			       "a tracepoint of the network cannot be watched");
		return err == -ENOENT ? -EOPNOTSUPP : err;
	}
	queue_delayed_work(system_unbound_wq, &expiry, TELLING);
	return 0;
}

/**
 * ipttrace_steps_end - undo ipttrace_steps_begin()
 *
 * Context: process, under the arming lock.
 */
void ipttrace_steps_end(void)
{
	probes_unregister();
	cancel_delayed_work_sync(&expiry);
}

/**
 * ipttrace_steps_lost - packets so far that journeys lost sight of
 */
u64 ipttrace_steps_lost(void)
{
	return atomic64_read(&lost);
}
