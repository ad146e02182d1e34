// SPDX-License-Identifier: GPL-2.0
/*
 * `ipttctl record --snaplen`: the first bytes of a packet go with the event of the first function
 * that it meets at a hook, or of the hook if there is none. They begin with the IP header; only the
 * linear part is read.
 */
#include "ipttrace.h"
#include "packet.h"

IPTTRACE_LICENSE("GPL");

/* What fits into a payload of 256 bytes behind the two numbers. */
#define CAPTURE_MOST 248

/* Most bytes of a packet, CAPTURE_MOST at most. */
IPTTRACE_CONST(__u32, snaplen);

struct capture {
	__u32 length; /* of the packet */
	__u32 captured; /* bytes of it in data; the others are zero */
	__u8 data[CAPTURE_MOST];
};

#ifdef IPTTRACE_BPFCC
BPF_PERCPU_ARRAY(captures, struct capture, 1);
#else
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct capture);
} captures SEC(".maps");

struct nf_hook_state {
	__u8 pf;
} __attribute__((preserve_access_index));
#endif

IPTTRACE_FIELD(__u8, state_pf, nf_hook_state, pf);

static inline struct capture *first_capture(void)
{
	__u32 first = 0;

#ifdef IPTTRACE_BPFCC
	return captures.lookup(&first);
#else
	return bpf_map_lookup_elem(&captures, &first);
#endif
}

static inline void take(struct capture *capture, const struct sk_buff *skb,
			const struct nf_hook_state *state)
{
	__u8 pf = state_pf(state);
	__u32 length = packet_skb_len(skb);
	__u64 size = length - packet_skb_data_len(skb);

	if (pf != NFPROTO_IPV4 && pf != NFPROTO_IPV6)
		return;
	if (size > IPTTRACE_GET(snaplen))
		size = IPTTRACE_GET(snaplen);
	/* The verifier has to see the bound of the very value that is used. */
	asm volatile("" : "+r"(size));
	if (size > CAPTURE_MOST)
		size = CAPTURE_MOST;
	if (bpf_probe_read_kernel(capture->data, size, packet_skb_data(skb)))
		return;
	capture->length = length;
	capture->captured = size;
}

IPTTRACE_PROGRAM
int capture_function(struct pt_regs *ctx)
{
	const struct sk_buff *skb = ipttrace_function_skb(ctx);
	struct capture *capture = first_capture();

	if (!capture)
		return IPTTRACE_EMIT_EVENT;
	__builtin_memset(capture, 0, sizeof(*capture));
	if (skb && ipttrace_function_count(ctx) == 1)
		take(capture, skb, ipttrace_function_state(ctx));
	return IPTTRACE_EMIT_EVENT;
}

IPTTRACE_PROGRAM
int capture_exit(struct pt_regs *ctx)
{
	const struct sk_buff *skb = ipttrace_spine_exit_skb(ctx);
	struct capture *capture = first_capture();

	if (!capture)
		return IPTTRACE_EMIT_EVENT;
	__builtin_memset(capture, 0, sizeof(*capture));
	if (skb && !ipttrace_spine_exit_functions(ctx))
		take(capture, skb, ipttrace_exit_state(ctx));
	return IPTTRACE_EMIT_EVENT;
}
