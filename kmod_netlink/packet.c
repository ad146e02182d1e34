// SPDX-License-Identifier: GPL-2.0
/*
 * The description of a packet in its event.
 */
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/netdevice.h>
#include <linux/netfilter_arp.h>
#include <linux/netfilter_bridge.h>
#include <linux/sched/task_stack.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>

#include "packet.h"

/**
 * ipttrace_packet_sender - the process that is sending a packet
 * @skb: the packet
 * @state: state of the hook that it is at
 * @softirqs: softirqs were on when the hook was entered, whatever the caller has done since
 *
 * Only a packet that leaves a local socket in the context of a process is that process's: softirqs
 * run on top of any process. A process that sends has them on where its packet comes to the hooks
 * of IP. With softirqs off the kernel handles packets of others too, on a process's account:
 *
 * - nf_reinject() goes on with a packet from a queue in the context of whoever gave the verdict. At
 *   the hook that it was queued at softirqs are on, but there the state is in the queue's entry,
 *   not on the stack;
 * - a process that sends takes what others have put into the same queue of a device
 *   (__qdisc_run()), and bridges and tunnels send that on;
 * - a process that polls a device, or writes to a tun, handles what has come in, and what TCP
 *   answers to it.
 *
 * A socket of the kernel's is anybody's: a process that asks an NFS server sends what others have
 * to ask as well.
 *
 * Return: the tgid, or 0 where it is not known.
 */
u32 ipttrace_packet_sender(const struct sk_buff *skb,
			   const struct nf_hook_state *state, bool softirqs)
{
	if (!softirqs || !in_task() || (current->flags & PF_KTHREAD))
		return 0;
	/* bridges number these two alike; the other families do not get that far */
	if (state->hook != NF_INET_LOCAL_OUT &&
	    state->hook != NF_INET_POST_ROUTING)
		return 0;
	if (!skb->sk || !state->sk || !object_is_on_stack(state))
		return 0;
	if (sk_fullsock(skb->sk) && skb->sk->sk_kern_sock)
		return 0;
	return task_tgid_nr(current);
}

#ifdef CONFIG_CGROUPS
static u64 current_cgroup(void)
{
	return cgroup_id(task_dfl_cgroup(current));
}
#else
static u64 current_cgroup(void)
{
	return 0;
}
#endif

static void describe_sender(struct ipttrace_event *event,
			    const struct sk_buff *skb,
			    const struct nf_hook_state *state, bool softirqs)
{
	/* nf_hook() holds rcu_read_lock() */
	const struct task_struct *leader = READ_ONCE(current->group_leader);

	event->pid = ipttrace_packet_sender(skb, state, softirqs);
	if (!event->pid)
		return;
	event->flags |= IPTTRACE_EVENT_FLAG_PID;
	event->pid_start = leader->start_boottime;
	event->cgroup = current_cgroup();
	event->uid = from_kuid(&init_user_ns, current_euid());
	/* it may be changing, but ends with a NUL at any time */
	strscpy(event->comm, leader->comm, sizeof(event->comm));
}

static void describe_icmp(struct ipttrace_event *event,
			  const struct sk_buff *skb, int offset, u8 request,
			  u8 reply)
{
	/* type, code, checksum, identifier: the same in ICMPv6 */
	struct icmphdr header;
	const struct icmphdr *icmp;

	icmp = skb_header_pointer(skb, offset, sizeof(header), &header);
	if (!icmp) {
		event->flags |= IPTTRACE_EVENT_FLAG_TRUNCATED;
		return;
	}
	event->icmp_type = icmp->type;
	event->icmp_code = icmp->code;
	if (icmp->type == request || icmp->type == reply)
		event->icmp_id = ntohs(icmp->un.echo.id);
}

static void describe_ports(struct ipttrace_event *event,
			   const struct sk_buff *skb, int offset)
{
	__be16 ports[2];
	const __be16 *port;

	port = skb_header_pointer(skb, offset, sizeof(ports), ports);
	if (!port) {
		event->flags |= IPTTRACE_EVENT_FLAG_TRUNCATED;
		return;
	}
	event->sport = ntohs(port[0]);
	event->dport = ntohs(port[1]);
}

static void describe_transport(struct ipttrace_event *event,
			       const struct sk_buff *skb, int offset)
{
	u8 flags;
	const u8 *tcp_flags;

	switch (event->protocol) {
	case IPPROTO_ICMP:
		describe_icmp(event, skb, offset, ICMP_ECHO, ICMP_ECHOREPLY);
		break;
	case IPPROTO_ICMPV6:
		describe_icmp(event, skb, offset, ICMPV6_ECHO_REQUEST,
			      ICMPV6_ECHO_REPLY);
		break;
	case IPPROTO_TCP:
		describe_ports(event, skb, offset);
		tcp_flags = skb_header_pointer(skb, offset + 13, sizeof(flags),
					       &flags);
		if (tcp_flags)
			event->tcp_flags = *tcp_flags;
		else
			event->flags |= IPTTRACE_EVENT_FLAG_TRUNCATED;
		break;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		describe_ports(event, skb, offset);
		break;
	}
}

static void describe_ipv4(struct ipttrace_event *event,
			  const struct sk_buff *skb)
{
	int offset = skb_network_offset(skb);
	struct iphdr header;
	const struct iphdr *ip;

	ip = skb_header_pointer(skb, offset, sizeof(header), &header);
	if (!ip) {
		event->flags |= IPTTRACE_EVENT_FLAG_TRUNCATED;
		return;
	}
	memcpy(event->saddr, &ip->saddr, sizeof(ip->saddr));
	memcpy(event->daddr, &ip->daddr, sizeof(ip->daddr));
	event->protocol = ip->protocol;
	if (ip->frag_off & htons(IP_OFFSET))
		event->flags |= IPTTRACE_EVENT_FLAG_FRAGMENT;
	else
		describe_transport(event, skb, offset + ip->ihl * 4);
}

/*
 * Describes the part of an IPv6 packet behind its header. ipv6_skip_exthdr() would not do: it stops
 * at the header of a later fragment, and takes "no next header" for the end of a packet that is cut
 * short.
 */
static void describe_ipv6_payload(struct ipttrace_event *event,
				  const struct sk_buff *skb, int offset)
{
	struct frag_hdr buffer;
	const struct frag_hdr *fragment;
	const struct ipv6_opt_hdr *header;

	while (ipv6_ext_hdr(event->protocol) &&
	       event->protocol != NEXTHDR_NONE) {
		if (event->protocol == NEXTHDR_FRAGMENT) {
			fragment = skb_header_pointer(skb, offset,
						      sizeof(buffer), &buffer);
			if (!fragment)
				goto truncated;
			event->protocol = fragment->nexthdr;
			if (fragment->frag_off & htons(IP6_OFFSET)) {
				event->flags |= IPTTRACE_EVENT_FLAG_FRAGMENT;
				return;
			}
			offset += sizeof(*fragment);
			continue;
		}
		header = skb_header_pointer(skb, offset, sizeof(*header),
					    &buffer);
		if (!header)
			goto truncated;
		offset += event->protocol == NEXTHDR_AUTH ?
				  ipv6_authlen(header) :
				  ipv6_optlen(header);
		event->protocol = header->nexthdr;
	}
	describe_transport(event, skb, offset);
	return;

truncated:
	event->flags |= IPTTRACE_EVENT_FLAG_TRUNCATED;
}

static void describe_ipv6(struct ipttrace_event *event,
			  const struct sk_buff *skb)
{
	int offset = skb_network_offset(skb);
	struct ipv6hdr header;
	const struct ipv6hdr *ip;

	ip = skb_header_pointer(skb, offset, sizeof(header), &header);
	if (!ip) {
		event->flags |= IPTTRACE_EVENT_FLAG_TRUNCATED;
		return;
	}
	memcpy(event->saddr, &ip->saddr, sizeof(ip->saddr));
	memcpy(event->daddr, &ip->daddr, sizeof(ip->daddr));
	event->protocol = ip->nexthdr;
	describe_ipv6_payload(event, skb, offset + sizeof(*ip));
}

/* Describes an ARP packet. One without IPv4 addresses, or cut short, shows none. */
static void describe_arp(struct ipttrace_event *event,
			 const struct sk_buff *skb)
{
	int offset = skb_network_offset(skb);
	struct arphdr header;
	const struct arphdr *arp;
	__be32 address;
	const __be32 *ip;

	arp = skb_header_pointer(skb, offset, sizeof(header), &header);
	if (!arp) {
		event->flags |= IPTTRACE_EVENT_FLAG_TRUNCATED;
		return;
	}
	event->arp_operation = ntohs(arp->ar_op);
	/* on IEEE 1394 there is no target hardware address */
	if (arp->ar_pro != htons(ETH_P_IP) || arp->ar_pln != sizeof(address) ||
	    arp->ar_hrd == htons(ARPHRD_IEEE1394))
		return;

	/* sender's hardware and IP address, then the target's */
	offset += sizeof(header) + arp->ar_hln;
	ip = skb_header_pointer(skb, offset, sizeof(address), &address);
	if (ip) {
		memcpy(event->saddr, ip, sizeof(address));
		offset += sizeof(address) + arp->ar_hln;
		ip = skb_header_pointer(skb, offset, sizeof(address), &address);
	}
	if (ip)
		memcpy(event->daddr, ip, sizeof(address));
	else
		event->flags |= IPTTRACE_EVENT_FLAG_TRUNCATED;
}

/* The protocol of the network header, as the family says, or else as the link layer said. */
static u16 packet_ethertype(const struct sk_buff *skb, u8 pf)
{
	switch (pf) {
	case NFPROTO_IPV4:
		return ETH_P_IP;
	case NFPROTO_IPV6:
		return ETH_P_IPV6;
	case NFPROTO_ARP:
		return ETH_P_ARP;
	default:
		return ntohs(skb->protocol);
	}
}

static bool is_outward(const struct nf_hook_state *state)
{
	if (state->pf == NFPROTO_ARP)
		return state->hook == NF_ARP_OUT;
	if (state->pf == NFPROTO_IPV4 || state->pf == NFPROTO_IPV6)
		return state->hook == NF_INET_LOCAL_OUT ||
		       state->hook == NF_INET_POST_ROUTING;
	return false;
}

/* The MAC header is the received one only on the way in; on the way out it is not written yet. */
static void describe_dmac(struct ipttrace_event *event,
			  const struct sk_buff *skb,
			  const struct nf_hook_state *state)
{
	if (is_outward(state))
		return;
	if (!state->in || !skb_mac_header_was_set(skb) ||
	    skb_mac_header_len(skb) < ETH_HLEN)
		return;
	if (state->in->type != ARPHRD_ETHER &&
	    state->in->type != ARPHRD_LOOPBACK)
		return;
	memcpy(event->dmac, eth_hdr(skb)->h_dest, ETH_ALEN);
	event->flags |= IPTTRACE_EVENT_FLAG_DMAC;
}

#if IS_ENABLED(CONFIG_BRIDGE_NETFILTER)
/* Describes a port of a bridge by its index. */
static void describe_bridge_port(const struct nf_hook_state *state, int ifindex,
				 u32 *to, char *name, size_t size)
{
	const struct net_device *port;

	/* nf_hook() holds rcu_read_lock() */
	port = ifindex ? dev_get_by_index_rcu(state->net, ifindex) : NULL;
	if (!port)
		return;
	*to = ifindex;
	strscpy(name, port->name, size);
}

/*
 * Whether the port that the packet of a bridge will leave by is there: nothing holds it. The kernel
 * has found it just now where br_netfilter has IP's hooks forward the packet, and what comes behind
 * them, with the bridge as the device by which it leaves. Elsewhere, as where a copy made there is
 * sent later, that port may be gone.
 */
static bool has_port_out(const struct nf_hook_state *state)
{
	if (state->pf != NFPROTO_IPV4 && state->pf != NFPROTO_IPV6)
		return false;
	if (state->hook != NF_INET_FORWARD &&
	    state->hook != NF_INET_POST_ROUTING)
		return false;
	return state->out && netif_is_bridge_master(state->out);
}

/* Describes the bridge's ports, where br_netfilter hands the packet of a bridge to IP. */
static void describe_bridge_ports(struct ipttrace_event *event,
				  const struct sk_buff *skb,
				  const struct nf_hook_state *state)
{
	describe_bridge_port(state, nf_bridge_get_physinif(skb),
			     &event->physin_ifindex, event->physin_name,
			     sizeof(event->physin_name));
	if (has_port_out(state))
		describe_bridge_port(state, nf_bridge_get_physoutif(skb),
				     &event->physout_ifindex,
				     event->physout_name,
				     sizeof(event->physout_name));
}
#else
static void describe_bridge_ports(struct ipttrace_event *event,
				  const struct sk_buff *skb,
				  const struct nf_hook_state *state)
{
}
#endif

/**
 * ipttrace_packet_describe - describe a packet in its event
 * @event: the event, zeroed
 * @skb: the packet
 * @state: state of the hook that it is at
 * @softirqs: see ipttrace_packet_sender(); false where its sender is not wanted
 */
void ipttrace_packet_describe(struct ipttrace_event *event,
			      const struct sk_buff *skb,
			      const struct nf_hook_state *state, bool softirqs)
{
	event->skb = (unsigned long)skb;
	event->netns = state->net->ns.inum;
	event->netns_cookie = state->net->net_cookie;
	event->mark = skb->mark;
	event->length = skb->len - skb_network_offset(skb);
	event->pf = state->pf;
	event->hook = state->hook;
	describe_sender(event, skb, state, softirqs);
	if (state->in) {
		event->in_ifindex = state->in->ifindex;
		strscpy(event->in_name, state->in->name,
			sizeof(event->in_name));
	}
	if (state->out) {
		event->out_ifindex = state->out->ifindex;
		strscpy(event->out_name, state->out->name,
			sizeof(event->out_name));
	}
	describe_bridge_ports(event, skb, state);
	describe_dmac(event, skb, state);
	event->ethertype = packet_ethertype(skb, state->pf);
	switch (event->ethertype) {
	case ETH_P_IP:
		describe_ipv4(event, skb);
		break;
	case ETH_P_IPV6:
		describe_ipv6(event, skb);
		break;
	case ETH_P_ARP:
		describe_arp(event, skb);
		break;
	}
}
