// SPDX-License-Identifier: GPL-2.0
/*
 * Packets that are known: which of them a packet at a hook is, and what was decided over it. An
 * address alone does not tell: addresses are used again.
 */
#include <linux/bitfield.h>
#include <linux/hash.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/jhash.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/udp.h>
#include <net/ip.h>
#include <net/net_namespace.h>

#include "known.h"

/* Buckets of one cache line. */
#define BUCKET_BITS 10
#define WAYS 7

/*
 * A known packet: its address and what it keeps on its way, the place where it began, the
 * namespace, hook and protocol where it was last, and whether it is left out.
 */
#define KNOWN_LEFT_OUT BIT_ULL(0)
#define KNOWN_PF GENMASK_ULL(4, 1)
#define KNOWN_HOOK GENMASK_ULL(7, 5)
#define KNOWN_NET GENMASK_ULL(16, 8)
#define KNOWN_FIRST GENMASK_ULL(28, 17)
#define KNOWN_CONTENT GENMASK_ULL(43, 29)
#define KNOWN_ADDRESS GENMASK_ULL(63, 44)

/* Where it was last. */
#define KNOWN_LAST (KNOWN_NET | KNOWN_HOOK | KNOWN_PF)

/*
 * Known packets: those decided over last in front. Changed in order by who holds @lock; a packet on
 * its way updates its own without it, by cmpxchg. One that is moved is in two ways for a moment,
 * the later one first, and never in none: readers go from the first to the last.
 */
struct ipttrace_bucket {
	u64 known[WAYS];
	raw_spinlock_t lock;
} ____cacheline_aligned_in_smp;

struct ipttrace_known {
	struct ipttrace_bucket buckets[1 << BUCKET_BITS];
};

/* Numbers in a transport header that NAT keeps, and that tell a packet from the next like it. */
static u32 transport_content(const struct sk_buff *skb, int offset, u8 protocol)
{
	__be32 words[4] = {};

	/* a datagram may be shorter */
	if (skb_copy_bits(skb, offset, words, sizeof(words)) &&
	    skb_copy_bits(skb, offset, words, sizeof(struct udphdr)))
		return 0;
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_ESP:
		/* sequence numbers; of ESP, its SPI too */
		return jhash2((u32 *)words + (protocol == IPPROTO_TCP), 2, 0);
	case IPPROTO_UDP:
		/* not the checksum; of DNS, RTP, QUIC, what their packets are told apart by */
		words[1] &= htonl(0xffff0000);
		return jhash2((u32 *)words + 1, 3, 0);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		/* the sequence number of an echo, not its identifier */
		return ntohl(words[1]) & 0xffff;
	case IPPROTO_SCTP:
		return ntohl(words[1]);
	default:
		return 0;
	}
}

static u32 ipv4_content(const struct sk_buff *skb)
{
	int offset = skb_network_offset(skb);
	const struct iphdr *ip;
	struct iphdr header;
	u32 transport = 0;

	ip = skb_header_pointer(skb, offset, sizeof(header), &header);
	if (!ip)
		return 0;
	if (!(ip->frag_off & htons(IP_OFFSET)))
		transport = transport_content(skb, offset + ip->ihl * 4,
					      ip->protocol);
	return jhash_3words(ntohs(ip->id) << 16 | ntohs(ip->tot_len),
			    ntohs(ip->frag_off) & IP_OFFSET, transport,
			    ip->protocol);
}

static u32 ipv6_content(const struct sk_buff *skb)
{
	int offset = skb_network_offset(skb);
	const struct ipv6hdr *ip;
	struct ipv6hdr header;

	ip = skb_header_pointer(skb, offset, sizeof(header), &header);
	if (!ip)
		return 0;
	return jhash_2words(ntohs(ip->payload_len),
			    transport_content(skb, offset + sizeof(header),
					      ip->nexthdr),
			    ip->nexthdr);
}

/* A hash of what a packet keeps on its way, whatever NAT does. */
static u32 packet_content(const struct sk_buff *skb)
{
	switch (skb->protocol) {
	case htons(ETH_P_IP):
		return ipv4_content(skb);
	case htons(ETH_P_IPV6):
		return ipv6_content(skb);
	default:
		return jhash_1word(skb->len, ntohs(skb->protocol));
	}
}

/* A packet at a place, in the form of a known one. */
static u64 packet_here(const struct sk_buff *skb, u32 address,
		       const struct nf_hook_state *state, const void *place)
{
	u32 first = jhash_3words(hash_ptr(place, 32), hash_ptr(state->net, 32),
				 state->hook, state->pf);

	return FIELD_PREP(KNOWN_PF, state->pf) |
	       FIELD_PREP(KNOWN_HOOK, state->hook) |
	       FIELD_PREP(KNOWN_NET, state->net->ns.inum) |
	       FIELD_PREP(KNOWN_FIRST, first >> (32 - 12)) |
	       FIELD_PREP(KNOWN_CONTENT, packet_content(skb) >> (32 - 15)) |
	       FIELD_PREP(KNOWN_ADDRESS, address >> (32 - 20));
}

/* Tells whether a packet at one hook of IP can come to another in the same namespace. */
static bool hook_reaches(unsigned int last, unsigned int hook, bool looped)
{
	if (hook == last)
		return true;
	switch (last) {
	case NF_INET_PRE_ROUTING:
		return hook != NF_INET_LOCAL_OUT;
	case NF_INET_FORWARD:
		return hook == NF_INET_POST_ROUTING;
	case NF_INET_LOCAL_OUT:
	case NF_INET_POST_ROUTING:
		if (looped)
			return hook == NF_INET_PRE_ROUTING ||
			       hook == NF_INET_LOCAL_IN;
		return last == NF_INET_LOCAL_OUT &&
		       hook == NF_INET_POST_ROUTING;
	default:
		return false;
	}
}

/*
 * Tells whether a packet is the known one of its address, on its way. Addresses are used again. The
 * next packet on the same way comes to the place where this one began; another, to a hook where it
 * cannot have gone from its last one.
 */
static bool packet_goes_on(u64 known, u64 here,
			   const struct nf_hook_state *state)
{
	unsigned int last = FIELD_GET(KNOWN_HOOK, known);
	bool looped = state->in && state->in->flags & IFF_LOOPBACK;

	if ((known ^ here) & KNOWN_CONTENT || !((known ^ here) & KNOWN_FIRST))
		return false;
	if (FIELD_GET(KNOWN_PF, known) != state->pf ||
	    (state->pf != NFPROTO_IPV4 && state->pf != NFPROTO_IPV6))
		return true;
	if ((known ^ here) & KNOWN_NET)
		return last != NF_INET_LOCAL_IN &&
		       state->hook != NF_INET_LOCAL_OUT;
	return hook_reaches(last, state->hook, looped);
}

/* Tells whether a known packet has the address of another. */
static bool known_address(u64 known, u64 here)
{
	return !((known ^ here) & KNOWN_ADDRESS);
}

/*
 * The way of a bucket in which an address is known, or the last one if it is not, and what is known
 * there.
 */
static unsigned int bucket_find(const struct ipttrace_bucket *bucket, u64 here,
				u64 *known)
{
	unsigned int way = 0;

	while (true) {
		/* one that has left this way is seen where bucket_insert() has moved it */
		*known = smp_load_acquire(&bucket->known[way]);
		if (known_address(*known, here) || way == WAYS - 1)
			return way;
		way++;
	}
}

/* Makes a packet known, in place of the one of its address, or of the one known for longest. */
static void bucket_insert(struct ipttrace_bucket *bucket, u64 here)
{
	unsigned long flags;
	unsigned int way;
	u64 known;

	raw_spin_lock_irqsave(&bucket->lock, flags);
	way = bucket_find(bucket, here, &known);
	for (; way; way--)
		/* bucket_find() sees it here before it leaves the way that it was in */
		smp_store_release(&bucket->known[way],
				  READ_ONCE(bucket->known[way - 1]));
	/* likewise the one that was in front */
	smp_store_release(&bucket->known[0], here);
	raw_spin_unlock_irqrestore(&bucket->lock, flags);
}

/* --- interface ----------------------------------------------------------------------------- */

/**
 * ipttrace_known_find - look for a packet among those that are known
 * @known: the known packets
 * @skb: the packet
 * @state: state of the hook that it is at
 * @place: table or base chain there: no packet passes it twice on its way
 * @seen: set to what ipttrace_known_add() needs
 * @left_out: set to what was decided over it, if it is known
 *
 * A packet is forgotten once seven others that share its bucket have been added.
 *
 * Context: any that packets are in; it may be preempted.
 * Return: true if it is known, and has not begun its way anew.
 */
bool ipttrace_known_find(struct ipttrace_known *known,
			 const struct sk_buff *skb,
			 const struct nf_hook_state *state, const void *place,
			 struct ipttrace_sighting *seen, bool *left_out)
{
	u32 address = hash_ptr(skb, 32);
	struct ipttrace_bucket *bucket =
		&known->buckets[address & ((1 << BUCKET_BITS) - 1)];
	u64 here = packet_here(skb, address * GOLDEN_RATIO_32, state, place);
	u64 before;
	unsigned int way = bucket_find(bucket, here, &before);

	seen->bucket = bucket;
	seen->here = here;
	if (!known_address(before, here) ||
	    !packet_goes_on(before, here, state))
		return false;
	/* if it is being moved it stays as it is: its decision does */
	if ((before ^ here) & KNOWN_LAST)
		cmpxchg(&bucket->known[way], before,
			(before & ~KNOWN_LAST) | (here & KNOWN_LAST));
	*left_out = before & KNOWN_LEFT_OUT;
	return true;
}

/**
 * ipttrace_known_add - make a packet known
 * @seen: from ipttrace_known_find(), which did not find it
 * @left_out: what was decided over it
 *
 * Context: any that packets are in; it may be preempted.
 */
void ipttrace_known_add(const struct ipttrace_sighting *seen, bool left_out)
{
	bucket_insert(seen->bucket,
		      seen->here | FIELD_PREP(KNOWN_LEFT_OUT, left_out));
}

/**
 * ipttrace_known_alloc - make room for known packets
 *
 * Return: freed with kvfree(); NULL if there is no memory.
 */
struct ipttrace_known *ipttrace_known_alloc(void)
{
	struct ipttrace_known *known =
		kvzalloc(sizeof(*known), GFP_KERNEL_ACCOUNT);
	unsigned int i;

	for (i = 0; known && i < ARRAY_SIZE(known->buckets); i++)
		raw_spin_lock_init(&known->buckets[i].lock);
	return known;
}
